//! A guest that was booted, and its agent.

use std::process::ExitStatus;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::prepare::Prepared;
use super::save::Completing;
use super::{ShimError, identity};
use crate::artifacts::GUEST_CONTRACT;
use crate::guest::client::{AgentClient, AgentError};
use crate::guest::frames::Request;
use crate::vm::hypervisor::{Disk, Hypervisor, MESSAGES_FILE, how_it_ended, last_words};
use crate::vm::virtiofs::ShareDaemon;

/// How long a guest that goes on may take until its agent is met and its clock set.
pub const WAKE_DEADLINE: Duration = Duration::from_secs(30);
/// How long a hypervisor whose channel broke may take to end.
pub(super) const LAST_MOMENT: Duration = Duration::from_secs(1);

/// A booted guest.
pub struct Booted {
    /// The hypervisor.
    pub hypervisor: Box<dyn Hypervisor>,
    /// The agent; none in an image without one.
    pub agent: Option<Agent>,
    /// virtio-fs daemons, which end with the VM.
    pub daemons: Vec<ShareDaemon>,
    /// Disks: the root, the VM's own, volumes.
    pub disks: Vec<Disk>,
    /// Whether it was restored from a snapshot.
    pub restored: bool,
    /// Why it was not restored, where it could have been.
    pub why: Option<String>,
    /// A ready snapshot of it on its way to the disk.
    pub completing: Option<Completing>,
}

/// The guest agent, and the task that carries its frames.
pub struct Agent {
    /// To ask it.
    pub client: AgentClient,
    driver: JoinHandle<Result<(), AgentError>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Brings a guest that stood still up to now.
pub fn wake() -> Request {
    Request::Wake { time_ns: identity::now_ns(), entropy: identity::entropy() }
}

impl Booted {
    /// To ask the agent.
    pub fn client(&self) -> Option<AgentClient> {
        self.agent.as_ref().map(|agent| agent.client.clone())
    }

    /// Has a machine go on that stood still, its agent met and its clock set.
    pub async fn go_on(&mut self, prepared: &Prepared) -> Result<(), ShimError> {
        self.hypervisor.resume().await?;
        let woken = async {
            if self.agent.is_none() {
                self.meet_agent(prepared).await?;
            }
            let Some(agent) = self.client() else { return Ok(()) };
            agent.request(wake()).await.map(drop).map_err(|error| ShimError::Agent(error.to_string()))
        };
        let late = |_| ShimError::Agent("it does not answer".into());
        tokio::time::timeout(WAKE_DEADLINE, woken).await.map_err(late)?
    }

    /// Connects to the agent and waits until it says what it is. The caller sets the deadline.
    pub async fn meet_agent(&mut self, prepared: &Prepared) -> Result<(), ShimError> {
        if !prepared.artifacts.has_agent() {
            return Ok(());
        }
        let control = self.hypervisor.control().await;
        if control.is_err()
            && let Ok(Some(status)) = self.hypervisor.child().try_wait()
        {
            return Err(died(prepared, Ok(status)));
        }
        let control = control?;
        let (client, driver) = AgentClient::start(control);
        // Its end shows in every session.
        let agent = Agent { client, driver: tokio::spawn(driver) };
        let hello = tokio::select! {
            hello = agent.client.hello() => hello,
            status = self.hypervisor.child().wait() => return Err(died(prepared, status)),
        };
        match hello {
            Ok(hello) if hello.contract == GUEST_CONTRACT => self.agent = Some(agent),
            Ok(hello) => return Err(ShimError::Contract { found: hello.contract, known: GUEST_CONTRACT }),
            Err(error) => return Err(self.agent_failed(prepared, error).await),
        }
        Ok(())
    }

    /// A channel that breaks is mostly the first sign of a hypervisor that ends: then that is said.
    pub(super) async fn agent_failed(&mut self, prepared: &Prepared, error: AgentError) -> ShimError {
        match tokio::time::timeout(LAST_MOMENT, self.hypervisor.child().wait()).await {
            Ok(status) => died(prepared, status),
            Err(_) => ShimError::Agent(error.to_string()),
        }
    }
}

pub(super) fn died(prepared: &Prepared, status: std::io::Result<ExitStatus>) -> ShimError {
    let how = |status| how_it_ended(prepared.spec.hypervisor, status);
    let status = status.map_or_else(|error| error.to_string(), how);
    let words = last_words(&prepared.dir.join(MESSAGES_FILE)).map(|words| format!(": {words}"));
    ShimError::Died { how: status + &words.unwrap_or_default() }
}
