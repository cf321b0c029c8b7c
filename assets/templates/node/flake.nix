# A Nix flake: a file that says what can be built here. This is the language Nix; `#` begins a comment,
# `{ a = 1; }` is a set of names with values, and `x: …` is a function of x.
{
  description = "A Node service on port 8080";

  # What the flake needs from elsewhere: nothing is downloaded. `mvm-offline` comes with mvm; Node is
  # the system's (package nodejs), as `mvm setup --with node` laid it out.
  inputs.mvm.url = "flake:mvm-offline";
  inputs.node = {
    url = "flake:mvm-node";
    flake = false;
  };

  # What it gives: a function of the inputs.
  outputs =
    { mvm, node, ... }:
    {
      # The guests that can be built, by name; `mvm build --list` shows them.
      packages = mvm.lib.mkGuests {
        name = "node";
        default = "app";
        roles.app = {
          # Its programs and libraries go into the guest.
          tools = [ node ];
          # mvm takes the guest for ready once these listen.
          ports = [ 8080 ];
          # A shell script that is kept running. `exec` has the server take the shell's place.
          services.app.run = "exec node /srv/app/server.js";
          files."/srv/app/server.js" = ./server.js;
        };
      };
    };
}
