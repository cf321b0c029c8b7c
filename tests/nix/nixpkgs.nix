# A stand-in for nixpkgs, for evaluating nix/flake.nix where the real one cannot be had: enough
# names for mkGuest, and modules that are merged by hand. It says nothing about NixOS itself.
let
  derivationOf = name: { type = "derivation"; inherit name; outPath = "/nix/store/stand-in-${name}"; dev = "/nix/store/stand-in-${name}-dev"; drvPath = "/nix/store/stand-in-${name}.drv"; };
  merge = a: b: a // builtins.mapAttrs (name: value: if builtins.isAttrs value && builtins.isAttrs (a.${name} or null) && !(value ? outPath) then merge a.${name} value else value) b;
  genAttrs = names: value: builtins.listToAttrs (map (name: { inherit name; value = value name; }) names);
  option = { default ? null, ... }: default;
  lib = {
    inherit genAttrs;
    nameValuePair = name: value: { inherit name value; };
    mapAttrs' = pair: set: builtins.listToAttrs (map (name: pair name set.${name}) (builtins.attrNames set));
    mkOption = option;
    mkDefault = value: value;
    mkForce = value: value;
    trivial.release = "0";
    types = {
      str = null;
      port = null;
      package = null;
      ints.positive = null;
      nullOr = _: null;
      listOf = _: null;
    };
  };
  pkgs = genAttrs
    [ "cargo" "clippy" "rustc" "rustfmt" "qemu" "firecracker" "e2fsprogs" "cpio" "openssh" "nftables" "iproute2" "curl" "git" "rsync" "strace" "vim" "emptyDirectory" ]
    derivationOf
  // {
    runtimeShell = "/bin/sh";
    pkgsStatic.busybox = derivationOf "busybox";
    writeScript = name: text: builtins.seq (builtins.stringLength text) (derivationOf name);
    makeModulesClosure = _: derivationOf "modules";
    mkShell = { packages }: builtins.deepSeq (map (package: package.outPath) packages) (derivationOf "shell");
    runCommand = name: env: text: builtins.seq (builtins.stringLength text) (derivationOf name // env.passthru or { } // { inherit (env) info; });
    callPackage = _: args: builtins.seq (builtins.stringLength args.populateImageCommands) (derivationOf "rootfs");
    rustPlatform.buildRustPackage = args: builtins.seq args.cargoLock.lockFile (derivationOf args.pname);
  };
  # runCommand without `info`, for the initrd.
  packages = pkgs // { runCommand = name: env: pkgs.runCommand name ({ info = null; } // env); };
  nixosSystem =
    { system, modules }:
    let
      load = module: let value = if builtins.isPath module then import module else module; in if builtins.isFunction value then value { inherit config lib; pkgs = packages; } else value;
      loaded = map load modules;
      part = module: merge { mvm = { }; } (if module ? config then module.config else removeAttrs module [ "options" ]);
      config = builtins.foldl' merge base (map (module: module.options or { }) loaded ++ map part loaded);
      base = {
        systemd.package = derivationOf "systemd";
        boot.kernelPackages.kernel = derivationOf "kernel";
        system.build.toplevel = derivationOf "toplevel";
      };
    in
    { inherit config; };
in
{
  lib = lib // { inherit nixosSystem; };
  legacyPackages = genAttrs [ "x86_64-linux" "aarch64-linux" ] (_: packages);
  outPath = "/nix/store/stand-in-nixpkgs";
}
