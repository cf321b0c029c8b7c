//! All about what is selected.

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::super::fields::{self, Fields};
use super::super::pane::pane;
use super::super::text::fitted;
use super::super::vm::second;
use super::super::vms::state_role;
use super::{Scene, counted, is_focused};
use crate::console::model::clock::since;
use crate::console::model::fleet::{Instance, Pool, Tenant};
use crate::console::theme::Role;
use crate::console::ui::cluster::{Part, What};
use crate::event::cluster::{ClusterInfo, InstanceInfo, NodeInfo, QuotaInfo, SettingInfo};
use crate::event::words::{bytes, duration};

/// Draws the pane.
pub(super) fn draw(scene: Scene<'_>, what: What<'_>, area: Rect, buffer: &mut Buffer) {
    let title = match what {
        What::Coordinator(_) => "Coordinator",
        What::Node(node) => &node.name,
        What::Tenant(tenant) => &tenant.path,
        What::Pool(pool) => &pool.path,
        What::Instance(_, instance) => &instance.path,
    };
    let title = fitted(scene.theme, title, area.width.saturating_sub(8));
    let inner = pane(scene.theme, &title, is_focused(scene, Part::Detail), area, buffer);
    fields::draw(lines(scene, what, inner.width), scene.ui.cluster.top, inner, buffer);
}

fn lines(scene: Scene<'_>, what: What<'_>, width: u16) -> Vec<Line<'static>> {
    let mut page = Fields::new(scene.theme, width);
    match what {
        What::Coordinator(cluster) => of_coordinator(scene, cluster, &mut page),
        What::Node(node) => of_node(scene, node, &mut page),
        What::Tenant(tenant) => of_tenant(tenant, &mut page),
        What::Pool(pool) => of_pool(scene, pool, &mut page),
        What::Instance(pool, instance) => of_instance(scene, pool, instance, &mut page),
    }
    page.lines
}

fn of_coordinator(scene: Scene<'_>, cluster: &ClusterInfo, page: &mut Fields<'_>) {
    let time = cluster.started.map(|time| format!(" for {}", duration(since(time, scene.now))));
    page.add("state", &format!("{}{}", cluster.state, time.unwrap_or_default()), state_role(&cluster.state));
    page.add("address", &cluster.address, Role::Text);
    let routes = &scene.model.cluster.routes;
    if !routes.is_empty() {
        let open: u64 = routes.iter().fold(0, |sum, route| sum.saturating_add(route.connections));
        page.add("routes", &format!("{}, {open} connections", routes.len()), Role::Text);
    }
    for (label, value) in
        [("process", cluster.pid.map(|pid| pid.to_string())), ("version", cluster.version.clone())]
    {
        value.iter().for_each(|value| page.add(label, value, Role::Text));
    }
    cluster.config.iter().for_each(|config| page.add("config", config, Role::Text));
    if let Some(error) = &cluster.error {
        page.add("", &format!("as it is now it is not in force: {error}"), Role::Error);
    }
}

fn of_node(scene: Scene<'_>, node: &NodeInfo, page: &mut Fields<'_>) {
    page.add("state", &node.state, state_role(&node.state));
    node.error.iter().for_each(|error| page.add("why", error, Role::Error));
    page.add("address", &node.address, Role::Text);
    if node.here {
        page.add("", "this machine: its fleet is that of this state", Role::Dim);
    }
    let routes = scene.model.cluster.routes.iter().filter(|route| route.node == node.name);
    let routes: Vec<String> = routes.map(|route| route.listen.clone()).collect();
    if !routes.is_empty() {
        page.list("routes", &routes);
    }
}

fn of_tenant(tenant: &Tenant, page: &mut Fields<'_>) {
    if let Some(network) = &tenant.info.network {
        page.add("network", network, Role::Text);
    }
    let sum = tenant.sum();
    let pools = tenant.pools.len();
    let Some(QuotaInfo { cpus, memory_mib, running, warm, pools: most, instances, disk_gib }) =
        tenant.info.quotas
    else {
        page.add("pools", &pools.to_string(), Role::Text);
        return;
    };
    let mut of = |label, is: u64, most: u64, unit: &str| {
        let role = if is >= most { Role::Warning } else { Role::Text };
        page.add(label, &format!("{is}{unit} of {most}{unit}"), role);
    };
    of("running", sum.is.running.into(), running.into(), "");
    of("warm", sum.is.warm.into(), warm.into(), "");
    of("CPUs", sum.cpus, cpus.into(), "");
    of("memory", sum.memory_mib, memory_mib, "M");
    of("pools", pools as u64, most.into(), "");
    let failed = if sum.failed > 0 { format!(", {} failed", sum.failed) } else { String::new() };
    let all = format!("{} in all, {} sleeping{failed}; at most {instances} a pool", sum.all, sum.is.sleeping);
    page.add("instances", &all, Role::Text);
    page.add("disks", &format!("at most {disk_gib} GiB"), Role::Text);
}

fn of_pool(scene: Scene<'_>, pool: &Pool, page: &mut Fields<'_>) {
    let (info, sum) = (&pool.info, pool.sum);
    match info.counts {
        None => page.add("instances", &format!("{} of {}", info.actual, info.desired), Role::Text),
        Some(wish) => {
            let role = if sum.is == wish { Role::Ok } else { Role::Busy };
            page.add("instances", &format!("{}, {} in all", counted(sum.is, wish, u16::MAX), sum.all), role);
        }
    }
    if sum.failed > 0 {
        page.add("", &format!("{} failed", sum.failed), Role::Error);
    }
    if let Some(failure) = &info.failure {
        page.add("failure", failure, Role::Error);
        page.add("", &retried(info.retry, scene.now), Role::Dim);
    }
    held(info.held, scene.now, page);
    match &info.revision {
        None => page.add("revision", "not built yet", Role::Dim),
        Some(revision) => page.add("revision", revision, Role::Text),
    }
    let earlier = info.revisions.iter().filter(|one| Some(&one.build) != info.revision.as_ref());
    for (index, one) in earlier.enumerate() {
        let text = format!("{}, {} ago", one.build, duration(since(one.created, scene.now)));
        page.add(if index == 0 { "earlier" } else { "" }, &text, Role::Dim);
    }
    let Some(settings) = &info.settings else { return };
    of_settings(settings, page);
}

fn of_settings(settings: &SettingInfo, page: &mut Fields<'_>) {
    page.add("flake", &settings.flake, Role::Text);
    for (label, value) in [("profile", &settings.profile), ("role", &settings.role)] {
        value.iter().for_each(|value| page.add(label, value, Role::Text));
    }
    let SettingInfo { cpus, memory_mib, disk_mib, .. } = settings;
    page.add("each has", &format!("{}, {disk_mib}M disk", machine(*cpus, *memory_mib)), Role::Text);
    let marks = [("pinned", settings.pinned), ("critical", settings.critical)];
    let marks = marks.iter().filter(|(_, on)| *on).map(|(mark, _)| format!("; {mark}"));
    let policy = format!(
        "runs at least {} s, warm at least {} s; {} s to drain, {} s to shut down{}",
        settings.min_running_secs,
        settings.min_warm_secs,
        settings.drain_secs,
        settings.shutdown_secs,
        marks.collect::<String>()
    );
    page.add("policy", &policy, Role::Text);
}

fn of_instance(scene: Scene<'_>, pool: &Pool, instance: &Instance, page: &mut Fields<'_>) {
    let (info, now) = (&instance.info, scene.now);
    let time = info.since.map(|time| format!(" for {}", duration(since(time, now)))).unwrap_or_default();
    page.add("state", &format!("{}{time}", info.state), state_role(&info.state));
    of_faults(info, now, page);
    if let Some(lease) = info.lease.as_ref().filter(|lease| lease.until > now) {
        let left = duration(since(now, lease.until));
        page.add("lease", &format!("held awake for {left}, then {} again", lease.from), Role::Text);
    }
    held(info.held, now, page);
    for (label, value) in [("endpoint", &info.endpoint), ("address", &info.address)] {
        value.iter().for_each(|value| page.add(label, value, Role::Text));
    }
    match (&info.revision, &pool.info.revision) {
        (Some(own), Some(current)) if own != current => {
            page.add("revision", &format!("{own}, not the pool's current one"), Role::Warning);
        }
        (Some(own), _) => page.add("revision", own, Role::Text),
        (None, _) => {}
    }
    if info.cpus > 0 {
        page.add("machine", &machine(info.cpus, info.memory_mib), Role::Text);
    }
    if let Some(id) = &info.vm {
        let saved = scene.model.vm(id).and_then(|vm| vm.snapshot());
        let saved = saved.map(|saved| format!(", saved in {}", bytes(saved.bytes))).unwrap_or_default();
        page.add("VM", &format!("{id}{saved}"), Role::Text);
    }
    if let Some(created) = info.created {
        page.add("created", &second(created), Role::Text);
    }
}

fn of_faults(info: &InstanceInfo, now: Timestamp, page: &mut Fields<'_>) {
    if let Some(detail) = &info.detail {
        page.add("why", detail, Role::Error);
    }
    if info.failures > 0 {
        let starts = if info.failures == 1 { "start" } else { "starts" };
        let next = retried(info.retry, now);
        page.add("", &format!("{} {starts} failed in a row; {next}", info.failures), Role::Dim);
    }
}

fn machine(cpus: u32, memory_mib: u32) -> String {
    format!("{cpus} CPU{}, {memory_mib}M memory", if cpus == 1 { "" } else { "s" })
}

/// When it is tried again.
fn retried(at: Option<Timestamp>, now: Timestamp) -> String {
    match at.filter(|at| *at > now) {
        Some(at) => format!("the agent tries again in {}", duration(since(now, at))),
        None => "the agent may try again".into(),
    }
}

fn held(until: Option<Timestamp>, now: Timestamp, page: &mut Fields<'_>) {
    if let Some(until) = until.filter(|until| *until > now) {
        let left = duration(since(now, until));
        page.add("by hand", &format!("the agent leaves it as it is for {left}"), Role::Dim);
    }
}
