# To be sourced. How the scripts here ask apt without root, and without touching what is installed.

# prepare_apt DIRECTORY SUITE…: gives apt a state of its own, so that the system's is neither read nor changed, and
# fetches the lists of these suites into it. Afterwards APT_CONFIG=DIRECTORY/apt.conf makes apt-get use it.
prepare_apt() {
  apt=$1
  shift
  keys=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -r "$keys" ] && command -v apt-get >/dev/null && command -v dpkg >/dev/null || {
    echo 'this is not a Debian system with apt'
    return 1
  }
  mirror=${PGARCHIVIST_DEBIAN_MIRROR:-$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources \
    /etc/apt/sources.list.d/*.list 2>/dev/null |
    sed -n -e 's,^URIs: *\(https*://[^ ]*/debian\)/*\( .*\)*$,\1,p' \
      -e 's,^deb .*\(https*://[^ ]*/debian\)/* .*$,\1,p' | head -n 1)}
  mirror=${mirror:-http://deb.debian.org/debian}

  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  : >"$apt/status"
  for suite; do
    echo "deb [signed-by=$keys] $mirror $suite main"
  done >"$apt/sources.list"
  cat >"$apt/apt.conf" <<CONF
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
CONF
  APT_CONFIG=$apt/apt.conf timeout --foreground 120 apt-get -qq update
}
