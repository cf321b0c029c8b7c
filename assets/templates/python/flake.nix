# A Nix flake: a file that says what can be built here. This is the language Nix; `#` begins a comment,
# `{ a = 1; }` is a set of names with values, and `x: …` is a function of x.
{
  description = "A Python service on port 8080";

  # What the flake needs from elsewhere: nothing is downloaded. `mvm-offline` comes with mvm; Python is
  # the system's (package python3), as `mvm setup --with python` laid it out.
  inputs.mvm.url = "flake:mvm-offline";
  inputs.python = {
    url = "flake:mvm-python";
    flake = false;
  };

  # What it gives: a function of the inputs.
  outputs =
    { mvm, python, ... }:
    {
      # The guests that can be built, by name; `mvm build --list` shows them.
      packages = mvm.lib.mkGuests {
        name = "python";
        default = "app";
        roles.app = {
          # Its programs and libraries go into the guest.
          tools = [ python ];
          # mvm takes the guest for ready once these listen.
          ports = [ 8080 ];
          # A shell script that is kept running. `exec` has the server take the shell's place.
          services.app.run = "exec python3 /srv/app/app.py";
          files."/srv/app/app.py" = ./app.py;
        };
      };
    };
}
