# An mvm-profiles.toml, for mkGuests: attribute → { role; profile; onto; } of each entry with modules.
# A module is a file with options of mkGuest. Sets (services, files) and lists (ports, tools) join those
# of the role, anything else takes their place.
file:
let
  inherit (builtins) isAttrs isList;
  entries = if file == null then [ ] else (builtins.fromTOML (builtins.readFile file)).profile or [ ];

  # As mvm itself looks for it.
  attribute =
    entry:
    entry.attribute or (
      if entry ? role && entry ? name then "${entry.role}-${entry.name}" else entry.name or entry.role or "default"
    );

  join =
    below: module:
    below
    // builtins.mapAttrs (
      option: value:
      let
        had = below.${option} or null;
      in
      if isAttrs value && isAttrs had then
        had // value
      else if isList value && isList had then
        had ++ value
      else
        value
    ) module;
in
builtins.listToAttrs (
  map (entry: {
    name = attribute entry;
    value = {
      role = entry.role or null;
      profile = entry.name or "minimal";
      onto =
        options:
        builtins.foldl' join options (map (module: import (dirOf file + "/${module}")) entry.modules)
        // {
          inherit (entry) modules;
        };
    };
  }) (builtins.filter (entry: (entry.modules or [ ]) != [ ]) entries)
)
