mod diff;
mod property;
mod rules;
mod world;
