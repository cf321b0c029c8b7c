# One guest: initrd and root file system, each a derivation of its own so that a change of a
# service leaves the initrd as it is, and a third that joins them with the kernel.
{ host-tools, kernel }:
{
  name,
  profile ? "minimal",
  role ? null,
  system ? "x86_64-linux",
  # name → { run = a script's text or file; }: kept running from `personalise` to shutdown.
  services ? { },
  # absolute path in the guest → a text, a file, a directory, or { text | source; mode; }.
  files ? { },
  # Directories whose bin/, lib/ and share/ go into the guest, such as what `mvm setup --with` lays out.
  tools ? [ ],
  # TCP ports the services listen on once the guest is ready; 22 is always among them.
  ports ? [ ],
  # Least memory in MiB the image boots with.
  minMemMib ? 96,
  # The names of the modules this is made of, for mvm to see that they count.
  modules ? [ ],
}:
let
  inherit (builtins) attrNames concatStringsSep isAttrs isString match substring toFile;

  # All that runs comes from host-tools: PATH stays empty, and the sandbox may be on.
  build =
    name: script: env:
    derivation (
      {
        inherit name system;
        builder = "${host-tools}/build/bin/busybox";
        args = [ "sh" "-eu" script ];
        tools = "${host-tools}/build";
        # None of it is in any cache: asking one would only cost time.
        preferLocalBuild = true;
        allowSubstitutes = false;
      }
      // env
    );

  word =
    what: text:
    if match "[A-Za-z0-9_./@:+-]+" text != null then
      text
    else
      throw "mvm: ${what} `${text}` of guest `${name}` may hold letters, digits and _./@:+- only";

  # A text as a file in the store; paths and what lies in the store already stay what they are.
  asFile = value: if isString value && !isStored value then toFile "file" value else "${value}";
  isStored = text: match "${builtins.storeDir}/[^\n ]+" text != null;
  asScript =
    value:
    if isString value && !isStored value && substring 0 2 value != "#!" then
      toFile "script" "#!/bin/sh\n${value}"
    else
      asFile value;

  # Lines for rootfs.sh: mode, path in the guest, source.
  ofFile =
    path:
    let
      value = files.${path};
      file = if isAttrs value && !(value ? outPath) then value else { source = value; };
    in
    "${file.mode or "-"} ${word "the path" path} ${asFile (file.text or file.source)}";
  ofService =
    service: "755 ${word "the path" "/etc/service/${service}/run"} ${asScript services.${service}.run}";

  initrd = build "mvm-initrd" ./initrd.sh {
    inherit kernel;
    init = ./guest/init;
  };

  rootfs = build "${word "the name" name}-rootfs" ./rootfs.sh {
    guest = "${host-tools}/guest";
    extra = concatStringsSep " " (
      (if profile == "dev" then [ "${host-tools}/dev" ] else [ ]) ++ map (tool: "${tool}") tools
    );
    skeleton = ./guest;
    motd = "mvm guest ${name}, ${if role == null then "" else "role ${role}, "}profile ${profile}";
    role = if role == null then "" else role;
    manifest = concatStringsSep "" (
      map (line: line + "\n") (map ofService (attrNames services) ++ map ofFile (attrNames files))
    );
    passAsFile = [ "manifest" ];
  };
in
assert
  builtins.elem profile [ "minimal" "dev" ]
  || throw "mvm: guest `${name}` asks for profile `${profile}`; there are `minimal` and `dev`";
build "mvm-${name}" ./join.sh {
  inherit initrd kernel rootfs;
  info = builtins.toJSON {
    contract = 2;
    ports = [ 22 ] ++ builtins.filter (port: port != 22) ports;
    min_mem_mib = minMemMib;
    inherit modules;
  };
}
