# Unpacks a project's files, which come on standard input, into the image. The arguments are users and
# groups by turns, who own some of them.
while [ $# -gt 0 ]; do
	getent passwd "$1" >/dev/null || {
		echo "there is no user \`$1\`, who shall own a file: add [users.$1] to the Mvmfile" >&2
		exit 1
	}
	getent group "$2" >/dev/null || {
		echo "there is no group \`$2\`: write the owner as $1:GROUP" >&2
		exit 1
	}
	shift 2
done
tar --extract --no-overwrite-dir --keep-directory-symlink --directory /
