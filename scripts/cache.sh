# To be sourced. Where the servers for tests are kept, outside of the checkout, and how two set-ups share that place.

give_up() {
  printf 'setup: %s\n' "$1" >&2
  exit 1
}

# find_cache WHAT: sets cache to the directory. Others than root have to be able to enter it if root runs this, because
# tests run what is in it as somebody else.
find_cache() {
  if [ -n "${PGARCHIVIST_CACHE-}" ]; then
    cache=$PGARCHIVIST_CACHE
  elif [ "$(id -u)" = 0 ]; then
    cache=/var/cache/pgarchivist
  elif [ -n "${XDG_CACHE_HOME:-${HOME-}}" ]; then
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/pgarchivist
  else
    give_up "there is no HOME to keep $1 in: set PGARCHIVIST_CACHE to a directory"
  fi
  mkdir -p "$cache" 2>/dev/null ||
    give_up "$1 cannot be kept in $cache: set PGARCHIVIST_CACHE to another directory"
  cache=$(cd -P -- "$cache" && pwd -P)
}

# lock_cache NAME WHAT: keeps others who install the same out until this process ends. Two may start at once; the second
# then finds the work done.
lock_cache() {
  [ -w "$cache" ] ||
    give_up "$2 is missing in $cache, which is not writable: set PGARCHIVIST_CACHE to another directory"
  exec 9>"$cache/.$1.lock"
  flock -w 1200 9 || give_up "another set-up has been busy in $cache for 20 minutes: end it, then try again"
}
