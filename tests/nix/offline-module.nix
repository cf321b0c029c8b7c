{
  ports = [ 81 ];
  files."/b" = "b";
  services.x.run = "exec true";
  minMemMib = 200;
}
