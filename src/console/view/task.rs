//! A task as a small tree: what runs, what is done, the last log line.

use std::time::Duration;

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};

use super::columns::{about, brief};
use super::fold::fold;
use super::tree::progress;
use crate::console::model::clock::since;
use crate::console::model::derivation::{Derivation, State};
use crate::console::model::task::TaskModel;
use crate::console::model::transfer::Transfer;
use crate::console::model::tree::Row;
use crate::event::text::strip;

/// How things look.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Whether colours are wanted.
    pub colour: bool,
}

impl Look {
    fn style(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn dim(self) -> Style {
        if self.colour { Style::new().add_modifier(Modifier::DIM) } else { Style::new() }
    }
}

/// Draws a task into `area`: a heading, then as many items and log lines as fit.
pub fn draw(model: &TaskModel, look: Look, now: Timestamp, area: Rect, buffer: &mut Buffer) {
    let lines = lines(model, look, now, area.height as usize);
    // Each line is cut at the screen's edge, never wrapped: the area has a fixed height.
    Paragraph::new(lines).render(area, buffer);
}

fn lines<'a>(model: &'a TaskModel, look: Look, now: Timestamp, height: usize) -> Vec<Line<'a>> {
    let mut lines = vec![heading(model, look, now)];
    let room = height.saturating_sub(2);
    let fetching = model.transfers.running().take(room / 2).map(|transfer| fetch(transfer, look));
    lines.extend(fetching);
    // Long only where something is amiss, such as a machine that does not answer.
    if model.tree.running().is_empty()
        && lines.len() == 1
        && let Some((text, began)) = model.doing.last()
    {
        lines.push(busy(text, look, since(began, now)));
    }
    let shown = fold(&model.tree, height.saturating_sub(lines.len() + 1));
    if shown.ended > 0 {
        lines.push(sum("✔", Color::Green, format!("{} done", shown.ended), look));
    }
    let items = shown.rows.iter().filter_map(|row| Some((row, model.tree.get(row.at)?)));
    lines.extend(items.map(|(row, it)| derivation(row, it, look, now)));
    if shown.running > 0 {
        lines.push(sum("⏵", Color::Yellow, format!("{} more running", shown.running), look));
    }
    if shown.failed > 0 {
        lines.push(sum("✘", Color::Red, format!("{} more failed", shown.failed), look));
    }
    if let Some(line) = model.log.lines(model.log.range()).next_back() {
        let name = Some(model.log.name(line.source)).filter(|name| !name.is_empty());
        let name = name.map(|name| format!("{name}> ")).unwrap_or_default();
        lines.push(Line::styled(format!("  {name}{}", strip(line.text)), look.dim()));
    }
    lines
}

fn heading<'a>(model: &'a TaskModel, look: Look, now: Timestamp) -> Line<'a> {
    let mut spans = vec![Span::styled("⏵ ", look.style(Color::Cyan)), Span::raw(&model.title)];
    spans.push(Span::styled(format!("  {}", model.phase()), look.style(Color::Cyan)));
    let builds = model.totals.builds();
    if builds.expected > 0 {
        spans.push(Span::raw(format!("  {}/{} builds", builds.done, builds.expected)));
    }
    if let Some(started) = model.started {
        spans.push(Span::styled(format!("  {}", brief(since(started, now))), look.dim()));
    }
    Line::from(spans)
}

fn sum(sign: &'static str, colour: Color, text: String, look: Look) -> Line<'static> {
    let spans = [Span::styled("├ ", look.dim()), Span::styled(sign, look.style(colour))];
    Line::from_iter(spans.into_iter().chain([Span::styled(format!(" {text}"), look.dim())]))
}

fn busy<'a>(text: &'a str, look: Look, time: Duration) -> Line<'a> {
    let sign = Span::styled("⏵ ", look.style(Color::Yellow));
    let time = Span::styled(format!("  {}", brief(time)), look.dim());
    Line::from(vec![Span::styled("├ ", look.dim()), sign, Span::raw(text), time])
}

fn fetch<'a>(transfer: &'a Transfer, look: Look) -> Line<'a> {
    let verb = if transfer.copy { "copy" } else { "fetch" };
    Line::from(vec![
        Span::styled("├ ", look.dim()),
        Span::styled("⏵ ", look.style(Color::Yellow)),
        Span::raw(format!("{verb} {}", transfer.name)),
        Span::styled(format!("  {}", progress(transfer.done, transfer.expected)), look.dim()),
    ])
}

fn derivation<'a>(row: &Row, it: &'a Derivation, look: Look, now: Timestamp) -> Line<'a> {
    let trunks = row.trunks.iter().map(|goes_on| if *goes_on { "│ " } else { "  " });
    let branch = if row.last { "└ " } else { "├ " };
    let mark = match it.state {
        State::Running => Span::styled("⏵ ", look.style(Color::Yellow)),
        State::Done => Span::styled("✔ ", look.style(Color::Green)),
        State::Failed => Span::styled("✘ ", look.style(Color::Red)),
        State::Ended => Span::styled("■ ", look.dim()),
    };
    let branches: String = trunks.chain([branch]).collect();
    let mut spans = vec![Span::styled(branches, look.dim()), mark, Span::raw(&it.name)];
    if !it.host.is_empty() {
        spans.push(Span::styled(format!(" on {}", it.host), look.dim()));
    }
    let running = it.state == State::Running;
    if running && !it.phase.is_empty() {
        spans.push(Span::styled(format!("  {}", it.phase), look.style(Color::Cyan)));
    }
    let usual = it.usual().filter(|_| running).map(|usual| format!(" {}", about(usual)));
    let times = format!("  {}{}", brief(it.elapsed(now)), usual.unwrap_or_default());
    spans.push(Span::styled(times, look.dim()));
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Activity, Event, Kind, SCHEMA_VERSION, TaskId, TaskKind};

    fn model(events: Vec<(i64, Kind)>) -> TaskModel {
        let mut model = TaskModel::new(TaskId::new('t'), 1 << 20);
        for (second, kind) in events {
            let time = Timestamp::from_second(second).unwrap();
            model.apply(&Event { v: SCHEMA_VERSION, time, task: TaskId::new('t'), kind });
        }
        model
    }

    fn build(name: &str) -> Activity {
        Activity::Build {
            drv: format!("/nix/store/00000000000000000000000000000000-{name}.drv"),
            host: String::new(),
            usual_ms: Some(5000),
            needs: vec![],
        }
    }

    #[test]
    fn a_build_under_way_shows_its_tree_and_the_last_line() {
        let drv = "/nix/store/00000000000000000000000000000000-rootfs.drv".into();
        let model = model(vec![
            (0, Kind::TaskStarted { kind: TaskKind::Build, title: "hello#minimal".into() }),
            (0, Kind::Phase { name: "build".into() }),
            (1, Kind::ActivityStarted { id: 1, parent: None, what: build("initrd") }),
            (1, Kind::ActivityStarted { id: 2, parent: None, what: build("rootfs") }),
            (3, Kind::ActivityStopped { id: 1 }),
            (3, Kind::ActivityPhase { id: 2, phase: "image".into() }),
            (1, Kind::ActivityStarted { id: 9, parent: None, what: Activity::Total { of: "builds".into() } }),
            (3, Kind::Progress { id: Some(9), done: 1, expected: 3, running: 1, failed: 0 }),
            (3, Kind::Log { source: crate::event::Source::Build { drv }, text: "mke2fs 1.47.0".into() }),
        ]);
        let area = Rect::new(0, 0, 60, 5);
        let mut buffer = Buffer::empty(area);
        draw(&model, Look { colour: false }, Timestamp::from_second(5).unwrap(), area, &mut buffer);
        insta::assert_snapshot!(text(&buffer));
    }

    #[test]
    fn what_nix_waits_for_is_shown_while_nothing_is_built() {
        let what = Activity::Other { text: "connecting to 'ssh://far'".into() };
        let mut events = vec![
            (0, Kind::TaskStarted { kind: TaskKind::Build, title: "hello".into() }),
            (0, Kind::Phase { name: "evaluate".into() }),
            (1, Kind::ActivityStarted { id: 1, parent: None, what }),
        ];
        let shown = |events: &[(i64, Kind)]| {
            let area = Rect::new(0, 0, 60, 3);
            let mut buffer = Buffer::empty(area);
            let model = model(events.to_vec());
            draw(&model, Look { colour: false }, Timestamp::from_second(46).unwrap(), area, &mut buffer);
            text(&buffer)
        };
        assert_eq!(shown(&events), "⏵ hello  evaluate  46.0s\n├ ⏵ connecting to 'ssh://far'  45.0s\n\n");
        events.push((2, Kind::ActivityStopped { id: 1 }));
        assert_eq!(shown(&events), "⏵ hello  evaluate  46.0s\n\n\n");
    }

    fn text(buffer: &Buffer) -> String {
        let area = buffer.area();
        let row = |y| (0..area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..area.height).map(|y| row(y).trim_end().to_string() + "\n").collect()
    }
}
