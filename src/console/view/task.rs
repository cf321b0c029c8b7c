//! A task as a small tree: what runs, what is done, the last log line.

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};

use crate::console::model::task::{Item, TaskModel, since};
use crate::event::text::strip;
use crate::event::words::duration;

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
    let running = model.items.iter().filter(|item| item.ended.is_none());
    let done = model.items.iter().rev().filter(|item| item.ended.is_some());
    // What runs matters most; then what ended last.
    let mut shown: Vec<&Item> = running.chain(done).take(room).collect();
    shown.sort_by_key(|item| item.started);
    let last = shown.len().saturating_sub(1);
    for (index, item) in shown.into_iter().enumerate() {
        lines.push(row(item, if index == last { "└" } else { "├" }, look, now));
    }
    if let Some(text) = model.lines.back() {
        lines.push(Line::styled(format!("  {}", strip(text)), look.dim()));
    }
    lines
}

fn heading<'a>(model: &'a TaskModel, look: Look, now: Timestamp) -> Line<'a> {
    let mut spans = vec![Span::styled("⏵ ", look.style(Color::Cyan)), Span::raw(&model.title)];
    spans.push(Span::styled(format!("  {}", model.phase), look.style(Color::Cyan)));
    let (done, expected) = model.builds;
    if expected > 0 {
        spans.push(Span::raw(format!("  {done}/{expected} builds")));
    }
    if let Some(started) = model.started {
        spans.push(Span::styled(format!("  {}", duration(since(started, now))), look.dim()));
    }
    Line::from(spans)
}

fn row<'a>(item: &'a Item, branch: &'static str, look: Look, now: Timestamp) -> Line<'a> {
    let mark = match item.ended {
        Some(_) => Span::styled(" ✔ ", look.style(Color::Green)),
        None => Span::styled(" ⏵ ", look.style(Color::Yellow)),
    };
    let mut spans = vec![Span::styled(branch, look.dim()), mark, Span::raw(&item.name)];
    if !item.host.is_empty() {
        spans.push(Span::styled(format!(" on {}", item.host), look.dim()));
    }
    if !item.phase.is_empty() && item.ended.is_none() {
        spans.push(Span::styled(format!("  {}", item.phase), look.style(Color::Cyan)));
    }
    spans.push(Span::styled(format!("  {}", duration(item.elapsed(now))), look.dim()));
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Activity, Event, Kind, SCHEMA_VERSION, TaskId, TaskKind};

    fn model(events: Vec<(i64, Kind)>) -> TaskModel {
        let mut model = TaskModel::new(TaskId::new('t'));
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
            usual_ms: None,
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

    fn text(buffer: &Buffer) -> String {
        let area = buffer.area();
        let row = |y| (0..area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..area.height).map(|y| row(y).trim_end().to_string() + "\n").collect()
    }
}
