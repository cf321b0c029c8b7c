# Unpacks a project's files, which come on standard input, into the image. The arguments are owners and
# paths by turns.
tar --extract --no-overwrite-dir --keep-directory-symlink --directory /
while [ $# -gt 0 ]; do
	chown -hR -- "$1" "$2"
	shift 2
done
