//! The pages.

/// A page, which is also a tile of the overview.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Page {
    /// Tiles of the others.
    Overview,
    /// Tasks, their derivations, their logs.
    #[default]
    Builds,
    /// VMs.
    Vms,
    /// Coordinator, nodes, tenants, pools, instances.
    Cluster,
    /// Routes of the coordinator.
    Routes,
    /// Sessions in tabs.
    Terminal,
    /// mvm's own log.
    Log,
}

impl Page {
    /// All pages, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Overview, Self::Builds, Self::Vms, Self::Cluster, Self::Routes, Self::Terminal, Self::Log];
    /// The overview's tiles, in the order in which Tab goes through them.
    pub const TILES: [Self; 4] = [Self::Builds, Self::Vms, Self::Cluster, Self::Routes];

    /// Its title.
    pub fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Builds => "Builds",
            Self::Vms => "VMs",
            Self::Cluster => "Cluster",
            Self::Routes => "Routes",
            Self::Terminal => "Terminal",
            Self::Log => "Log",
        }
    }
}

/// The neighbour of `current` in `all`, `by` steps on, round the ends.
pub fn neighbour<T: PartialEq + Copy>(all: &[T], current: T, by: isize) -> T {
    let at = all.iter().position(|item| *item == current).unwrap_or(0) as isize;
    all[(at + by).rem_euclid(all.len() as isize) as usize]
}

/// The index `by` steps from `current`, within a list of `count`; `None` when it is empty.
pub fn step(current: Option<usize>, by: isize, count: usize) -> Option<usize> {
    let last = count.checked_sub(1)?;
    Some(current.unwrap_or(0).saturating_add_signed(by).min(last))
}
