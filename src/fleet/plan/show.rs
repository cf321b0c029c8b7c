//! A plan as people read it.

use std::fmt::{self, Display, Formatter};

use super::action::{Action, Plan, ReplaceOrder, Why, Wish};
use super::changes::Change;

/// Widest column of names.
const WIDEST: usize = 48;

/// One line: a sign, what it is about, and what happens to it.
struct Line {
    sign: char,
    path: String,
    what: String,
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        let mut rest = self.actions.as_slice();
        while let Some(first) = rest.first() {
            // The same for the same pool in one line.
            let alike = match first {
                Action::Create { .. } => rest.iter().take_while(|other| *other == first).count(),
                _ => 1,
            };
            self.lines(first, alike, &mut lines);
            rest = &rest[alike..];
        }
        let width = lines.iter().map(|line| line.path.len());
        let width = width.chain(self.blocked.iter().map(|blocked| blocked.path.len()));
        let width = width.max().unwrap_or(0).min(WIDEST);
        for Line { sign, path, what } in &lines {
            writeln!(f, "{sign} {path:width$}  {what}")?;
        }
        for blocked in &self.blocked {
            writeln!(f, "! {:width$}  {}", blocked.path, self.reason(&blocked.why))?;
        }
        write!(f, "{}", self.summary())
    }
}

impl Plan {
    fn summary(&self) -> String {
        let waits = match self.blocked.len() {
            0 => String::new(),
            1 => "; 1 thing has to wait".into(),
            many => format!("; {many} things have to wait"),
        };
        match self.actions.len() {
            0 => format!("nothing to do{waits}"),
            1 => format!("1 action{waits}"),
            many => format!("{many} actions{waits}"),
        }
    }

    fn lines(&self, action: &Action, times: usize, lines: &mut Vec<Line>) {
        let mut put =
            |sign, path: &dyn Display, what: String| lines.push(Line { sign, path: path.to_string(), what });
        match action {
            Action::CreateTenant { tenant, network, .. } => {
                let what =
                    format!("create the tenant: network {}, {}", network.tenant_net_id, network.ipv4_subnet);
                put('+', tenant, what);
            }
            Action::UpdateTenant { tenant, changes, .. } => {
                changes.iter().for_each(|change| put('~', tenant, change.to_string()));
            }
            Action::RemoveTenant { tenant, instances } => {
                put('-', tenant, format!("remove the tenant{}", with(*instances)));
            }
            Action::CreatePool { path, pool } => {
                put('+', path, format!("create the pool: {}", pool.flake_ref))
            }
            Action::UpdatePool { path, changes, .. } => {
                changes.iter().for_each(|change| put('~', path, change.to_string()));
            }
            Action::BuildPool { path } => put('+', path, "build a revision".into()),
            Action::RemovePool { path, instances } => {
                put('-', path, format!("remove the pool{}", with(*instances)));
            }
            Action::Create { path, to } => {
                put('+', path, format!("create {} → {}", instances(times), to.as_str()));
            }
            Action::Wake { path, to } => put('~', path, format!("wake → {}", to.as_str())),
            Action::Resume { path } => put('~', path, "resume → running".into()),
            Action::Start { path, to } => put('~', path, format!("start → {}", to.as_str())),
            Action::Stop { path } => put('~', path, "stop".into()),
            Action::Warm { path } => put('~', path, "warm".into()),
            Action::Sleep { path } => put('~', path, "sleep".into()),
            Action::Replace { path, to, order } => {
                let order = match order {
                    ReplaceOrder::NewFirst => "the new one comes first",
                    ReplaceOrder::OldFirst => "the old one goes first",
                };
                put('~', path, format!("replace → {}; {order}", to.as_str()));
            }
            Action::Destroy { path } => put('-', path, "destroy".into()),
        }
    }

    fn reason(&self, why: &Why) -> String {
        let seconds = |until_ms: &i64| (until_ms.saturating_sub(self.now_ms)).max(0) as u64;
        let after = |until_ms| format!("{} s", seconds(until_ms).div_ceil(1000));
        match why {
            Why::Quota { wish, times, quota, used, need, most } => {
                let wish = match wish {
                    Wish::Pool => "create the pool".into(),
                    Wish::Run => format!("{} → running", instances(*times as usize)),
                    Wish::Warm => format!("{} → warm", instances(*times as usize)),
                    Wish::Sleep => format!("{} → sleeping", instances(*times as usize)),
                    Wish::Replace => "replace it".into(),
                };
                format!("{wish}: {quota} is {most}, {used} are used and {need} needed")
            }
            Why::BuildFailed { until_ms } => {
                format!("the last build failed; the next in {}", after(until_ms))
            }
            Why::CreateFailed { until_ms } => {
                format!("an instance could not be created; the next try in {}", after(until_ms))
            }
            Why::Failed { until_ms } => format!("failed; started again in {}", after(until_ms)),
            Why::Held { until_ms } => format!("left alone after a command for {}", after(until_ms)),
            Why::Leased { until_ms } => format!("in use; its lease lasts {}", after(until_ms)),
            Why::Young { until_ms } => format!("stays where it is for {}", after(until_ms)),
            Why::NetworkTaken { by } => format!("its network belongs to tenant `{by}`"),
            Why::NetworkInUse { instances: there } => {
                format!("its network stays while it has {}", instances(*there))
            }
        }
    }
}

fn instances(count: usize) -> String {
    if count == 1 { "1 instance".into() } else { format!("{count} instances") }
}

fn with(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" with {}", instances(count)) }
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} → {}", self.field, self.from, self.to)
    }
}
