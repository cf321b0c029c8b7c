# Joins the options of the role: one more page.
{
  files."/srv/www/status.txt" = ''
    up
  '';
}
