{
  description = "A web page on port 8080";

  inputs.mvm.url = "flake:mvm-offline";

  outputs =
    { mvm, ... }:
    {
      packages = mvm.lib.mkGuests {
        name = "gateway";
        default = "gateway";
        roles.gateway = {
          ports = [ 8080 ];
          services.http.run = "exec httpd -f -p 8080 -h /srv/www";
          files."/srv/www" = ./www;
        };
        # Works behind the gateway: no port but ssh.
        roles.worker = {
          services.work.run = "exec sleep 2147483647";
        };
      };
    };
}
