//! Samples taken in turns, and the verdict on them.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

/// After this long no further round is begun, once there are [`FEWEST`].
const BUDGET: Duration = Duration::from_secs(150);
const FEWEST: usize = 3;

/// A claim with what was measured.
pub struct Claim {
    /// What mvm does.
    pub what: &'static str,
    /// How long mvm took, each time.
    pub ours: Vec<Duration>,
    /// What that is held against.
    pub limit: Limit,
    /// Further figures, without a limit.
    pub stated: Vec<String>,
}

/// What a median is held against.
pub enum Limit {
    /// At most this share of the median of these.
    Share(f64, &'static str, Vec<Duration>),
    /// At most this.
    Absolute(Duration),
    /// At most this, all but one in a hundred; in place of the median.
    Percentile99(Duration),
    /// At most as many bytes as these, of those; in place of times.
    Bytes(u64, &'static str, u64),
    /// What it would be held against is not here, and why.
    Skipped(String),
}

impl Claim {
    /// One that cannot be measured here.
    pub fn skipped(what: &'static str, why: String) -> Self {
        Self { what, ours: Vec::new(), limit: Limit::Skipped(why), stated: Vec::new() }
    }

    /// Whether the limit holds.
    pub fn is_met(&self) -> bool {
        match &self.limit {
            Limit::Share(limit, _, theirs) => self.share(theirs) <= *limit,
            Limit::Absolute(limit) => median(&self.ours) <= *limit,
            Limit::Percentile99(limit) => percentile(&self.ours, 99) <= *limit,
            Limit::Bytes(ours, _, theirs) => ours <= theirs,
            Limit::Skipped(_) => true,
        }
    }

    fn share(&self, theirs: &[Duration]) -> f64 {
        median(&self.ours).as_secs_f64() / median(theirs).as_secs_f64()
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_met() { "ok" } else { "MISSED" };
        let Self { what, ours, .. } = self;
        match ours.is_empty() {
            true => writeln!(f, "{what}")?,
            false => writeln!(f, "{what}  (median of {}, with the extremes)", ours.len())?,
        }
        match &self.limit {
            Limit::Share(limit, against, theirs) => {
                writeln!(f, "  {:<34} {}", "mvm", spread(ours))?;
                writeln!(f, "  {against:<34} {}", spread(theirs))?;
                writeln!(
                    f,
                    "  {:<34} {:>9.3}       limit {limit:.2}  {verdict}",
                    "ratio",
                    self.share(theirs)
                )?;
            }
            Limit::Absolute(limit) => {
                writeln!(f, "  {:<34} {}   limit {}  {verdict}", "mvm", spread(ours), millis(*limit).trim())?
            }
            Limit::Percentile99(limit) => {
                writeln!(f, "  {:<34} {}", "mvm", spread(ours))?;
                let (most, limit) = (millis(percentile(ours, 99)), millis(*limit));
                writeln!(f, "  {:<34} {most}   limit {}  {verdict}", "99 of 100 within", limit.trim())?;
            }
            Limit::Bytes(ours, against, theirs) => {
                writeln!(f, "  {:<34} {ours:>9} bytes", "mvm")?;
                writeln!(f, "  {against:<34} {theirs:>9} bytes   limit of mvm  {verdict}")?;
            }
            Limit::Skipped(why) => writeln!(f, "  SKIPPED: {why}")?,
        }
        self.stated.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// A further figure: its name, and the median of what was measured.
pub fn stated(what: &str, samples: &[Duration]) -> String {
    format!("{what:<34} {}", spread(samples))
}

/// Takes turns for at most `rounds` rounds; each goes first every other time.
pub fn in_turns(
    rounds: usize,
    mut ours: impl FnMut() -> Result<Duration>,
    mut theirs: impl FnMut() -> Result<Duration>,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let began = Instant::now();
    let mut samples = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round >= FEWEST && began.elapsed() > BUDGET {
            break;
        }
        if round % 2 == 1 {
            samples.1.push(theirs()?);
        }
        samples.0.push(ours()?);
        if round % 2 == 0 {
            samples.1.push(theirs()?);
        }
    }
    Ok(samples)
}

/// The sample in the middle.
pub fn median(samples: &[Duration]) -> Duration {
    percentile(samples, 50)
}

/// What so many of a hundred samples do not exceed.
pub fn percentile(samples: &[Duration], of_hundred: usize) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort();
    sorted.get(sorted.len() * of_hundred / 100).copied().unwrap_or_default()
}

fn spread(samples: &[Duration]) -> String {
    let least = samples.iter().min().copied().unwrap_or_default();
    let most = samples.iter().max().copied().unwrap_or_default();
    format!("{}  ({} to {})", millis(median(samples)), millis(least).trim(), millis(most).trim())
}

/// In milliseconds, with a decimal.
pub fn millis(duration: Duration) -> String {
    format!("{:>9.1} ms", duration.as_secs_f64() * 1000.0)
}
