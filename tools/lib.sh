# lib.sh: what tools/check, tools/run and their like have in common.  Sourced by
# bash scripts that `set -euo pipefail`.
#
# The scripts have two lives.  The first runs in the caller's tree, as whoever
# called, and installs what is missing.  Then drop_privileges copies the tree to
# a work folder and starts the script again in there, as an ordinary user: that
# second life builds, starts servers and runs tests.  Nothing is ever written to
# /usr but Debian's own packages.

TREE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
SKY_USER=scrapersky

# The version of PostgreSQL that `make run` and `make check` work with.
PGVERSION=15

PACKAGES_BUILD=(gcc libc6-dev make postgresql-$PGVERSION postgresql-server-dev-$PGVERSION
	libjwt-dev libjansson-dev libssl-dev)
PACKAGES_RUN=(nginx curl ca-certificates)
PACKAGES_TEST=(postgresql-$PGVERSION-pgtap libtap-parser-sourcehandler-pgtap-perl
	libipc-run-perl pg-bsd-indent cppcheck binutils)
command -v npm >/dev/null || PACKAGES_RUN+=(nodejs npm)

# say MSG: one line for one step.
say()
{
	printf '%s\n' "$*"
}

# die MSG: one line that says what is wrong and what to do; exit status 1.
die()
{
	printf 'scrapersky: %s\n' "$*" >&2
	exit 1
}

# is_root: whether we have privileges to drop.
is_root()
{
	[ "$(id -u)" -eq 0 ]
}

BECOME=()
! is_root || BECOME=(setpriv --reuid=$SKY_USER --regid=$SKY_USER --init-groups --no-new-privs --inh-caps=-all --)

# missing_packages PACKAGE...: prints those that are not installed.
missing_packages()
{
	local package
	for package; do
		case $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) in
			installed) ;;
			*) echo "$package" ;;
		esac
	done
}

# need_packages PACKAGE...: when this returns, all are installed and no daemon
# of theirs was started.  Only root can install; for others it dies with the
# command that root should run.
need_packages()
{
	local missing
	command -v dpkg-query >/dev/null || die "this needs Debian 12; install by hand: $*"
	mapfile -t missing < <(missing_packages "$@")
	[ ${#missing[@]} -gt 0 ] || return 0
	is_root || die "packages are missing; run as root: apt-get install --no-install-recommends ${missing[*]}"
	say "installing ${missing[*]}"
	install_packages "${missing[@]}"
}

# install_packages PACKAGE...: apt-get install, quiet unless it fails.  While it
# runs, a policy forbids Debian to start daemons and to create a cluster; a
# fresh nginx loses its default site, so that it never listens on port 80.
install_packages()
(
	local policy=/usr/sbin/policy-rc.d cluster=/etc/postgresql-common/createcluster.d/scrapersky.conf
	local log remove
	log=$(mktemp)
	remove=("$log" "$cluster")
	[ -e "$policy" ] || remove+=("$policy")
	trap 'rm -f "${remove[@]}"' EXIT
	[ -e "$policy" ] || install -m 755 /dev/stdin "$policy" <<< $'#!/bin/sh\nexit 101'
	mkdir -p "${cluster%/*}"
	echo "create_main_cluster = false" > "$cluster"
	export DEBIAN_FRONTEND=noninteractive
	if ! { apt-get -q update && apt-get -qy -o DPkg::Lock::Timeout=300 \
		install --no-install-recommends "$@"; } > "$log" 2>&1 < /dev/null; then
		tail -n 20 "$log" >&2
		die "apt-get could not install $*; mend that (network, /etc/apt), then try again"
	fi
	[[ " $* " != *" nginx "* ]] || rm -f /etc/nginx/sites-enabled/default
)

# npm_ci FOLDER: the exact node packages of FOLDER/package-lock.json are in
# FOLDER/node_modules, readable by everybody.  No script of theirs is run.
npm_ci()
{
	local stamp=$1/node_modules/.package-lock.json log
	[ ! -e "$stamp" ] || [ "$1/package-lock.json" -nt "$stamp" ] || return 0
	say "installing the node packages of ${1##*/}/package-lock.json"
	log=$(cd "$1" && umask 022 &&
		npm ci --ignore-scripts --no-audit --no-fund 2>&1 < /dev/null) ||
		die "npm ci in $1 failed: $(grep -m 4 -i 'npm err' <<< "$log" | tr '\n' ' ')"
	touch "$stamp"
}

# as_user COMMAND...: runs it as the user that servers and tests run as: a
# system user of ours when we are root, else ourselves.
as_user()
{
	"${BECOME[@]}" "$@"
}

# make_user: the user of as_user exists.
make_user()
{
	! is_root || id "$SKY_USER" >/dev/null 2>&1 ||
		useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin $SKY_USER
}

# temp_folder NAME: prints a new folder for temporary files, which the user of
# as_user owns.
temp_folder()
{
	local base=${TMPDIR:-/tmp} folder
	make_user
	as_user test -w "$base" -a -x "$base" || base=/tmp
	folder=$(mktemp -d "$base/scrapersky-$1.XXXXXX")
	! is_root || chown $SKY_USER: "$folder"
	echo "$folder"
}

# run_folder: prints where `make run` in this tree keeps its data, a folder that
# the user of as_user owns: .run, or, where that user cannot come in, a folder
# under /var/lib that .run links to.
run_folder()
{
	local folder=$TREE/.run
	make_user
	if [ ! -e "$folder" ] && ! as_user test -x "$TREE"; then
		rm -f "$folder"
		ln -s "/var/lib/scrapersky/${TREE##*/}-$(cksum <<< "$TREE" | cut -d' ' -f1)" "$folder"
	fi
	folder=$(readlink -m "$folder")
	mkdir -p -m 700 "$folder"
	! is_root || chown $SKY_USER: "$folder"
	as_user test -w "$folder" -a -x "$folder" ||
		die "$folder belongs to somebody else; go on as that user, or remove it first (make clean-run)"
	echo "$folder"
}

# in_copy: whether this is the second life of a script.
in_copy()
{
	[ "${SKY_WORK:-}/tree" = "$TREE" ]
}

# drop_privileges WORK SCRIPT ARGUMENT...: does not return.  Copies the tree to
# WORK/tree (WORK: an absolute path, the user of as_user owns it) and becomes
# WORK/tree/SCRIPT as that user, in the same process, in a clean environment
# where SKY_WORK is WORK.  A second call with the same WORK keeps what was
# compiled there.
drop_privileges()
{
	local work=$1 script=$2 name pass=()
	shift 2
	as_user mkdir -p "$work/tree"
	as_user find "$work/tree" -depth -mindepth 1 ! -name '*.o' ! -name '*.so' ! -type d -delete
	# .gitignore is written so that tar understands it too
	tar -C "$TREE" --exclude=./.git -X <(grep -vx node_modules "$TREE/.gitignore") -cf - . |
		as_user tar -C "$work/tree" --no-overwrite-dir -xf - ||
		die "could not copy $TREE to $work/tree; is the disk full?"
	for name in TESTS PORT TERM TMPDIR; do
		[ -z "${!name:-}" ] || pass+=("$name=${!name}")
	done
	cd "$work/tree"
	exec env -i HOME="$work" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		LANG=C.UTF-8 SKY_WORK="$work" "${pass[@]}" \
		"${BECOME[@]}" bash "$work/tree/$script" "$@"
}

# private_copy FOLDER: FOLDER/usr holds a PostgreSQL of our own, into which the
# extension can be installed; PG_CONFIG, PGBIN and PATH lead to it.
private_copy()
{
	local system=/usr/lib/postgresql/$PGVERSION own=$1/usr/lib/postgresql/$PGVERSION
	if ! cmp -s "$system/bin/postgres" "$own/bin/postgres"; then
		rm -rf "${1:?}/usr"
		mkdir -p "${own%/*}" "$1/usr/share/postgresql" "$1/usr/include"
		cp -a /usr/share/postgresql/$PGVERSION "$1/usr/share/postgresql/"
		ln -s /usr/include/postgresql "$1/usr/include/postgresql"
		# the program that the next call looks for comes last: a copy that was interrupted is made again
		cp -a "$system" "$own.part"
		mv "$own.part" "$own"
	fi
	export PGBIN=$own/bin
	export PG_CONFIG=$PGBIN/pg_config
	export PATH=$PGBIN:$PATH
}

# build_into: the extension of this tree is compiled for, and installed in, the
# PostgreSQL of PG_CONFIG.  Quiet unless it fails.
build_into()
{
	local log
	log=$(make -C "$TREE" -s --no-print-directory -j2 PG_CONFIG="$PG_CONFIG" install 2>&1) || {
		printf '%s\n' "$log" >&2
		die "the build failed; the compiler's messages are above"
	}
}

# free_port: prints a TCP port of 127.0.0.1 that nobody listens on.
free_port()
{
	perl -MIO::Socket::INET -e \
		'print IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1")->sockport, "\n"'
}

# new_cluster FOLDER SETTING...: FOLDER/data is a new cluster (superuser
# postgres, UTF8, C locale) that only a unix socket leads to; each SETTING is a
# line for postgresql.conf.
new_cluster()
{
	local folder=$1 log
	shift
	mkdir -p "$folder/log"
	log=$(initdb -D "$folder/data" -U postgres -E UTF8 --locale=C -A trust --data-checksums --no-sync 2>&1) ||
		die "initdb failed: $(tail -n 1 <<< "$log")"
	printf '%s\n' "listen_addresses = ''" "unix_socket_permissions = 0700" "port = 5432" \
		"shared_preload_libraries = 'scrapersky,pg_stat_statements'" \
		"log_statement = 'none'" "$@" >> "$folder/data/postgresql.conf"
}

# start_cluster FOLDER: the cluster of new_cluster runs and answers; PGHOST,
# PGPORT and PGUSER lead to it.  Its log is FOLDER/log/postgres.log, its socket
# in FOLDER/socket (a link where the path is longer than a socket's may be).
start_cluster()
{
	local socket=$1/socket
	if [ ${#socket} -gt 80 ] && [ ! -d "$socket" ]; then
		ln -sfn "$(mktemp -d /tmp/scrapersky-socket.XXXXXX)" "$socket"
	fi
	mkdir -p "$socket"
	PGHOST=$(readlink -f "$socket")
	export PGHOST PGPORT=5432 PGUSER=postgres
	pg_ctl -D "$1/data" -l "$1/log/postgres.log" -o "-k '$PGHOST'" -s -w start > /dev/null 2>&1 ||
		die "PostgreSQL did not start: $(grep -E 'FATAL|PANIC' "$1/log/postgres.log" | tail -n 1); all of it is in $1/log/postgres.log"
}

# stop_cluster FOLDER: it does not run any more.
stop_cluster()
{
	[ ! -e "$1/data/postmaster.pid" ] || pg_ctl -D "$1/data" -s -m fast -w stop > /dev/null 2>&1 || true
	[ ! -L "$1/socket" ] || { rm -rf "$(readlink -f "$1/socket")"; rm -f "$1/socket"; }
}
