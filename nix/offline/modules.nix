# Options of mkGuest with modules on top: files that hold more of them. Sets (services, files) and lists
# (ports, tools) join what is there, anything else takes its place.
options: files:
let
  inherit (builtins) isAttrs isList;
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
builtins.foldl' join options (map import files)
