/** Which packages of the system bring what is needed to compile, by what its /etc/os-release says. */
import { readFile } from 'node:fs/promises'

export interface SystemPackages {
  /** How to get a C compiler with the headers of libc: a sentence without its dot. */
  compiler: string
  /** How to get the headers of a server. */
  headers(major: number, pkglibdir: string): string
}

const byFamily: Readonly<Record<string, SystemPackages>> = {
  debian: {
    compiler: 'run "apt-get install gcc libc6-dev"',
    headers: major => `run "apt-get install postgresql-server-dev-${major}"`,
  },
  fedora: {
    compiler: 'run "dnf install gcc glibc-devel"',
    // The packages of postgresql.org live in a directory of their own; the distribution's have another name.
    headers: (major, pkglibdir) =>
      `run "dnf install ${pkglibdir.startsWith('/usr/pgsql-') ? `postgresql${major}-devel` : 'postgresql-server-devel'}"`,
  },
  suse: {
    compiler: 'run "zypper install gcc glibc-devel"',
    headers: major => `run "zypper install postgresql${major}-server-devel"`,
  },
  alpine: {
    compiler: 'run "apk add gcc musl-dev"',
    headers: major => `run "apk add postgresql${major}-dev"`,
  },
  arch: {
    compiler: 'run "pacman -S gcc"',
    headers: () => 'run "pacman -S postgresql"',
  },
}

const unknownSystem: SystemPackages = {
  compiler: 'install gcc or clang, and the headers of libc',
  headers: major => `install the package with the server headers of PostgreSQL ${major}`,
}

export function packagesOf(osRelease: string): SystemPackages {
  const values = ['ID', 'ID_LIKE'].map(key => new RegExp(`^${key}=["']?([^"'\n]*)`, 'm').exec(osRelease)?.[1])
  const names = values.flatMap(value => (value ?? '').split(' '))
  // "opensuse-leap" is like "suse opensuse", Rocky Linux like "rhel centos fedora".
  return names.map(name => byFamily[name]).find(each => each !== undefined) ?? unknownSystem
}

export async function packagesHere(): Promise<SystemPackages> {
  return packagesOf(await readFile('/etc/os-release', 'utf8').catch(() => ''))
}
