//! `mvm tenant`.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::super::context::{Context, print, print_json, say};
use super::super::vm::confirm;
use super::{table, work};
use crate::fleet::desired::{Quotas, Subnet, Tenant, TenantNetwork};
use crate::fleet::error::FleetError;
use crate::fleet::ids::TenantId;
use crate::fleet::record::{self, TenantRecord};
use crate::fleet::{secrets, tenant};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm tenant create dev\n  mvm tenant create ci --subnet 10.240.8.0/24 --max-running 4\n  mvm tenant secrets set dev token --file token.txt\n  mvm tenant info dev\n  mvm tenant destroy dev --force"
)]
pub struct TenantArgs {
    #[command(subcommand)]
    command: TenantCommand,
}

#[derive(Debug, Subcommand)]
enum TenantCommand {
    /// Make a tenant
    Create {
        /// Its name: a-z, 0-9 and `-`
        name: TenantId,
        #[command(flatten)]
        settings: Settings,
    },
    /// List tenants with what they use
    #[command(visible_alias = "ls")]
    List,
    /// Show a tenant: network, quotas, pools, names of secrets
    Info {
        /// The tenant
        name: TenantId,
    },
    /// Change a tenant's quotas, or its network while it has no instances
    Update {
        /// The tenant
        name: TenantId,
        #[command(flatten)]
        settings: Settings,
    },
    /// Remove a tenant with its pools, instances, disks and secrets
    Destroy {
        /// The tenant
        name: TenantId,
        /// Do not ask
        #[arg(long, short)]
        force: bool,
    },
    /// Files that the tenant's instances find in /run/secrets, from their next start on
    Secrets {
        #[command(subcommand)]
        command: SecretsCommand,
    },
}

#[derive(Debug, Subcommand)]
enum SecretsCommand {
    /// Set a secret, or give it a new value
    Set {
        /// The tenant
        tenant: TenantId,
        /// The secret's name
        name: String,
        /// File with its value; `-` is standard input
        #[arg(long, value_name = "FILE", default_value = "-")]
        file: PathBuf,
    },
    /// List the names of secrets
    #[command(visible_alias = "ls")]
    List {
        /// The tenant
        tenant: TenantId,
    },
    /// Remove a secret
    #[command(visible_alias = "remove")]
    Rm {
        /// The tenant
        tenant: TenantId,
        /// The secret's name
        name: String,
    },
}

#[derive(Debug, Args)]
struct Settings {
    /// Its network below 10.240.0.0/12 [default: the first /24 that is free]
    #[arg(long, value_name = "CIDR", value_parser = subnet)]
    subnet: Option<Subnet>,
    /// Its network's number on this machine [default: the first that is free]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    net_id: Option<u16>,
    /// CPUs of running and warm instances
    #[arg(long, value_name = "NUMBER")]
    max_vcpus: Option<u32>,
    /// Memory of running and warm instances, MiB
    #[arg(long, value_name = "MIB")]
    max_mem: Option<u64>,
    /// Running instances
    #[arg(long, value_name = "NUMBER")]
    max_running: Option<u32>,
    /// Warm instances
    #[arg(long, value_name = "NUMBER")]
    max_warm: Option<u32>,
    /// Pools
    #[arg(long, value_name = "NUMBER")]
    max_pools: Option<u32>,
    /// Instances of one pool
    #[arg(long, value_name = "NUMBER")]
    max_instances: Option<u32>,
    /// Disks of all instances, GiB, as large as they may grow
    #[arg(long, value_name = "GIB")]
    max_disk: Option<u64>,
}

fn subnet(text: &str) -> Result<Subnet, String> {
    let subnet: Subnet = text.to_string().try_into()?;
    subnet.check().map(|()| subnet)
}

impl Settings {
    fn quotas(&self, old: Quotas) -> Quotas {
        Quotas {
            max_vcpus: self.max_vcpus.unwrap_or(old.max_vcpus),
            max_mem_mib: self.max_mem.unwrap_or(old.max_mem_mib),
            max_running: self.max_running.unwrap_or(old.max_running),
            max_warm: self.max_warm.unwrap_or(old.max_warm),
            max_pools: self.max_pools.unwrap_or(old.max_pools),
            max_instances_per_pool: self.max_instances.unwrap_or(old.max_instances_per_pool),
            max_disk_gib: self.max_disk.unwrap_or(old.max_disk_gib),
        }
    }

    fn network(&self, old: TenantNetwork) -> TenantNetwork {
        TenantNetwork {
            tenant_net_id: self.net_id.unwrap_or(old.tenant_net_id),
            ipv4_subnet: self.subnet.unwrap_or(old.ipv4_subnet),
        }
    }
}

/// Runs the command.
pub async fn tenant(context: &mut Context, args: TenantArgs) -> Result<ExitCode> {
    match args.command {
        TenantCommand::Create { name, settings } => create(context, name, &settings).await?,
        TenantCommand::List => list(context)?,
        TenantCommand::Info { name } => info(context, &name)?,
        TenantCommand::Update { name, settings } => {
            let old = record::find_tenant(&context.store, &name)?;
            let (network, quotas) = (settings.network(old.network), settings.quotas(old.quotas));
            set(context, "update", Tenant { tenant_id: name, network, quotas, pools: Vec::new() }).await?;
        }
        TenantCommand::Destroy { name, force } => return destroy(context, &name, force).await,
        TenantCommand::Secrets { command } => self::secrets(context, command)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(context: &mut Context, name: TenantId, settings: &Settings) -> Result<()> {
    let all = record::load(&context.store)?;
    if all.iter().any(|tenant| tenant.id == name) {
        return Err(FleetError::Refused {
            what: format!("there is a tenant `{name}` already"),
            help: format!("`mvm tenant update {name}` changes it"),
        }
        .into());
    }
    let free = tenant::free_network(&all).ok_or_else(|| FleetError::Refused {
        what: "all networks are taken".into(),
        help: "give a free one with --subnet and --net-id".into(),
    })?;
    let (network, quotas) = (settings.network(free), settings.quotas(Quotas::default()));
    set(context, "create", Tenant { tenant_id: name, network, quotas, pools: Vec::new() }).await
}

async fn set(context: &mut Context, verb: &str, tenant: Tenant) -> Result<()> {
    let name = tenant.tenant_id.clone();
    work(context, format!("{verb} the tenant {name}"), async |work| work.set_tenant(&tenant)).await?;
    if context.json {
        return Ok(());
    }
    print(name.as_str())
}

/// What a tenant uses of its quotas.
fn used(tenant: &TenantRecord) -> Value {
    let (mut running, mut warm, mut sleeping, mut vcpus, mut mem_mib, mut all) = (0, 0, 0, 0, 0, 0);
    for pool in &tenant.pools {
        let counts = super::pool::counts(pool);
        let live = counts.running + counts.warm;
        running += counts.running;
        warm += counts.warm;
        sleeping += counts.sleeping;
        vcpus += live * pool.pool.instance_resources.vcpus;
        mem_mib += u64::from(live) * u64::from(pool.pool.instance_resources.mem_mib);
        all += pool.instances.len();
    }
    json!({ "running": running, "warm": warm, "sleeping": sleeping, "instances": all, "vcpus": vcpus,
            "mem_mib": mem_mib, "pools": tenant.pools.len() })
}

fn as_json(context: &Context, tenant: &TenantRecord) -> Value {
    let pools: Vec<&str> = tenant.pools.iter().map(|pool| pool.path.pool.as_str()).collect();
    json!({ "tenant": tenant.id, "network": tenant.network, "quotas": tenant.quotas, "used": used(tenant),
            "pools": pools, "secrets": secrets::names(&context.paths, &tenant.id) })
}

fn list(context: &Context) -> Result<()> {
    let all = record::load(&context.store)?;
    if context.json {
        let items: Vec<Value> = all.iter().map(|tenant| as_json(context, tenant)).collect();
        return print_json(&json!({ "v": 1, "tenants": items }));
    }
    if all.is_empty() {
        return print("No tenants. `mvm tenant create NAME` makes one.");
    }
    table(
        ["TENANT", "NETWORK", "POOLS", "RUNNING", "WARM", "SLEEPING", "CPUS", "MEM"],
        all.iter().map(|tenant| {
            let (used, quotas) = (used(tenant), tenant.quotas);
            [
                tenant.id.to_string(),
                tenant.network.ipv4_subnet.to_string(),
                format!("{}/{}", used["pools"], quotas.max_pools),
                format!("{}/{}", used["running"], quotas.max_running),
                format!("{}/{}", used["warm"], quotas.max_warm),
                used["sleeping"].to_string(),
                format!("{}/{}", used["vcpus"], quotas.max_vcpus),
                format!("{}/{}M", used["mem_mib"], quotas.max_mem_mib),
            ]
        }),
    )
}

fn info(context: &Context, name: &TenantId) -> Result<()> {
    let tenant = record::find_tenant(&context.store, name)?;
    let value = as_json(context, &tenant);
    if context.json {
        return print_json(&value);
    }
    let quotas = tenant.quotas;
    print(&format!("tenant    {name}"))?;
    print(&format!("network   {} (number {})", tenant.network.ipv4_subnet, tenant.network.tenant_net_id))?;
    print(&format!(
        "quotas    {} CPUs, {} MiB, {} running, {} warm, {} pools, {} instances a pool, {} GiB of disk",
        quotas.max_vcpus,
        quotas.max_mem_mib,
        quotas.max_running,
        quotas.max_warm,
        quotas.max_pools,
        quotas.max_instances_per_pool,
        quotas.max_disk_gib
    ))?;
    let used = &value["used"];
    print(&format!(
        "used      {} CPUs, {} MiB, {} running, {} warm, {} sleeping",
        used["vcpus"], used["mem_mib"], used["running"], used["warm"], used["sleeping"]
    ))?;
    let words = |value: &Value| {
        let words = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        let words = words.collect::<Vec<_>>().join(" ");
        if words.is_empty() { "none".to_string() } else { words }
    };
    print(&format!("pools     {}", words(&value["pools"])))?;
    print(&format!("secrets   {}", words(&value["secrets"])))
}

async fn destroy(context: &mut Context, name: &TenantId, force: bool) -> Result<ExitCode> {
    let tenant = record::find_tenant(&context.store, name)?;
    let instances: usize = tenant.pools.iter().map(|pool| pool.instances.len()).sum();
    let question = format!(
        "Remove the tenant `{name}` with {} pools, {instances} instances, disks and secrets?",
        tenant.pools.len()
    );
    if !force && !confirm(&question, "--force")? {
        return Ok(ExitCode::FAILURE);
    }
    work(context, format!("destroy the tenant {name}"), async |work| {
        work.retire_tenant(name)?;
        work.remove_tenant(name).await
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

fn secrets(context: &Context, command: SecretsCommand) -> Result<()> {
    match command {
        SecretsCommand::Set { tenant, name, file } => {
            record::find_tenant(&context.store, &tenant)?;
            let mut value = Vec::new();
            // A little more than may be, so that too much is seen.
            let read = match file.as_os_str() == "-" {
                true => std::io::stdin().lock().take(secrets::LARGEST as u64 + 1).read_to_end(&mut value),
                false => std::fs::File::open(&file)
                    .and_then(|file| file.take(secrets::LARGEST as u64 + 1).read_to_end(&mut value)),
            };
            read.with_context(|| format!("cannot read `{}`", file.display()))?;
            secrets::set(&context.paths, &tenant, &name, &value)?;
            say(&format!("set the secret {name} of {tenant}; instances have it from their next start on"));
        }
        SecretsCommand::List { tenant } => {
            record::find_tenant(&context.store, &tenant)?;
            let names = secrets::names(&context.paths, &tenant);
            if context.json {
                return print_json(&names);
            }
            names.iter().try_for_each(|name| print(name))?;
        }
        SecretsCommand::Rm { tenant, name } => {
            record::find_tenant(&context.store, &tenant)?;
            secrets::remove(&context.paths, &tenant, &name)?;
        }
    }
    Ok(())
}
