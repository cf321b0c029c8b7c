# An mvm-profiles.toml, for mkGuests: attribute → { role; profile; modules; files; } of each entry with
# modules, which are named as in the file; `files` is where they are.
file:
let
  entries = if file == null then [ ] else (builtins.fromTOML (builtins.readFile file)).profile or [ ];

  # As mvm itself looks for it.
  attribute =
    entry:
    entry.attribute or (
      if entry ? role && entry ? name then
        "${entry.role}-${entry.name}"
      else
        entry.name or entry.role or "default"
    );
in
builtins.listToAttrs (
  map (entry: {
    name = attribute entry;
    value = {
      role = entry.role or null;
      profile = entry.name or "minimal";
      inherit (entry) modules;
      files = map (module: dirOf file + "/${module}") entry.modules;
    };
  }) (builtins.filter (entry: (entry.modules or [ ]) != [ ]) entries)
)
