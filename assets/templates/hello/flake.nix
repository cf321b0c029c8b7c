# A Nix flake: a file that says what can be built here. This is the language Nix; `#` begins a comment,
# `{ a = 1; }` is a set of names with values, and `x: …` is a function of x.
{
  description = "A shell and ssh";

  # What the flake needs from elsewhere. `mvm-offline` comes with mvm: nothing is downloaded.
  inputs.mvm.url = "flake:mvm-offline";

  # What it gives: a function of the inputs.
  outputs =
    { mvm, ... }:
    {
      # The guests that can be built, by name; `mvm build --list` shows them.
      packages = mvm.lib.mkGuests {
        name = "hello";

        # A role is what a guest is for. Each comes in two profiles: `minimal`, and `dev` with more tools.
        #   mvm run                             the default role, minimal
        #   mvm run --role worker --profile dev
        default = "worker";
        roles.worker = {
          # Files by their place in the guest: a text, or a file or directory beside this one.
          files."/etc/greeting" = ''
            Hello from a microVM.
          '';

          # Programs that are kept running, each as a shell script, and the ports they listen on:
          # services.web.run = "exec httpd -f -p 8080 -h /srv/www";
          # ports = [ 8080 ];
        };
      };
    };
}
