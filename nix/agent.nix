# The agent, from this very source.
{ pkgs }:
pkgs.rustPlatform.buildRustPackage {
  pname = "mvm-guest";
  version = (builtins.fromTOML (builtins.readFile ../Cargo.toml)).package.version;
  src = builtins.path {
    path = ../.;
    name = "mvm";
    # What a build leaves behind is no source.
    filter = path: _: !(builtins.elem (baseNameOf path) [ ".git" "target" "result" ]);
  };
  cargoLock.lockFile = ../Cargo.lock;
  cargoBuildFlags = [ "--bin" "mvm-guest" ];
  # The tests want Nix, QEMU and a network of their own.
  doCheck = false;
}
