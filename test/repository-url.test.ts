// The setting pgarchivist.repository: what is a repository's URL, and what a mistake in it is called.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RepositoryError } from '../src/repository/repository-error.ts'
import { parseRepositoryUrl, parseRepositoryUrls } from '../src/repository/repository-url.ts'
import { parseS3Location, type S3Location, s3Url } from '../src/repository/s3-location.ts'
import { type SftpLocation, sftpUrl } from '../src/repository/sftp-location.ts'
import { fileUrl } from '../src/repository/store/local-store.ts'

const s3Form = 'Write it as "s3://bucket/prefix?endpoint=https://host&region=name".'

const sftpForm = 'Write it as "sftp://user@host/directory".'
const sftpPath = 'Write its absolute path behind the host, as in "sftp://user@host/directory".'
const sftpCredentials =
  'Every role may see this setting: let "private_key_file" name a file that holds a key, or use ssh-agent.'

const directory = (path: string) => ({ scheme: 'file', directory: path }) as const

/** Message and hint of the refusal, on two lines. */
function refusal(text: string): string {
  try {
    parseRepositoryUrls(text)
  } catch (thrown) {
    assert.ok(thrown instanceof RepositoryError)
    assert.deepEqual([thrown.code, thrown.kind, thrown.detail], ['SETTINGS', 'settings', undefined])
    return `${thrown.message}\n${thrown.hint}`
  }
  return `"${text}" was accepted`
}

test('a directory is named by three slashes and its absolute path', () => {
  const accepted: Array<[string, string]> = [
    ['file:///srv/wal', '/srv/wal'],
    ['  file:///srv/wal ', '/srv/wal'],
    ['file:///srv/wal/', '/srv/wal'],
    ['file:////srv//wal///', '/srv/wal'],
    ['FILE:///Srv/WAL', '/Srv/WAL'],
    ['file://localhost/srv/wal', '/srv/wal'],
    ['file:///', '/'],
    ['file:///srv/with%20space', '/srv/with space'],
    ['file:///srv/with space', '/srv/with space'],
    ['file:///srv/a%2Cb', '/srv/a,b'],
    ['file:///srv/100%25', '/srv/100%'],
    ['file:///srv/what%3F%23', '/srv/what?#'],
    ['file:///srv/w@l', '/srv/w@l'],
    ['file:///srv/gr%C3%BC%C3%9Fe', '/srv/grüße'],
    ['file:///srv/grüße', '/srv/grüße'],
    ['file:///srv/...', '/srv/...'],
  ]
  for (const [text, path] of accepted) assert.deepEqual(parseRepositoryUrls(text), [directory(path)], text)
})

test('several are named one after the other, with commas in between', () => {
  assert.deepEqual(parseRepositoryUrls('file:///srv/a%2Cb , file:///srv/c,'), [
    directory('/srv/a,b'),
    directory('/srv/c'),
  ])
  assert.deepEqual(
    parseRepositoryUrls('s3://bucket/a,s3://bucket/b,s3://bucket/a?endpoint=http://host').length,
    3,
  )
})

test('an empty setting names no repository', () => {
  for (const text of ['', ' ', ',', ' , ,']) assert.deepEqual(parseRepositoryUrls(text), [])
})

test('what stands for a directory in messages is a URL that leads to it again', () => {
  for (const path of ['/srv/wal', '/', '/a b/c,d/e%f/g?h#i', '/grüße']) {
    assert.deepEqual(parseRepositoryUrls(fileUrl(path)), [directory(path)])
  }
})

test('an object store is named by its bucket, with a place in it and what else has to be known', () => {
  const place = (text: string) => {
    const [url] = parseRepositoryUrls(text)
    const { scheme: _, ...rest } = url as S3Location
    return Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined))
  }
  assert.deepEqual(place('s3://bucket'), { bucket: 'bucket', prefix: '' })
  assert.deepEqual(place('s3://bucket/'), { bucket: 'bucket', prefix: '' })
  assert.deepEqual(place('s3://bucket//a//b/'), { bucket: 'bucket', prefix: 'a/b/' })
  assert.deepEqual(
    place('S3://bucket/with%20space%2C?endpoint=http://127.0.0.1:9000/&region=eu&path_style=on'),
    {
      bucket: 'bucket',
      prefix: 'with space,/',
      endpoint: 'http://127.0.0.1:9000',
      region: 'eu',
      isPathStyle: true,
    },
  )
})

test('a container of Azure is named with its account', () => {
  const [location] = parseRepositoryUrls(
    'azure://wal/a%20b/?account=archive&endpoint=http://127.0.0.1:1/archive/&access_tier=cool',
  )
  assert.deepEqual(location, {
    scheme: 'azure',
    container: 'wal',
    prefix: 'a b/',
    account: 'archive',
    endpoint: 'http://127.0.0.1:1/archive',
    caFile: undefined,
    tier: 'Cool',
  })
})

test('what stands for a bucket in messages leads to it again', () => {
  for (const text of ['s3://bucket', 's3://bucket/a/%C3%A4%20%2541+b%22c?endpoint=http://127.0.0.1:9000']) {
    const location = parseS3Location(text)
    assert.deepEqual(parseRepositoryUrls(s3Url(location)), [location])
  }
  const known = parseS3Location('s3://bucket/wal?region=eu&profile=backup&sse=AES256')
  assert.equal(s3Url(known), 's3://bucket/wal')
})

test('a directory on another server is named by its absolute path there, and by who may prove to be whom', () => {
  const place = (text: string) => {
    const [url] = parseRepositoryUrls(text)
    const { scheme: _, ...rest } = url as SftpLocation
    return Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined))
  }
  assert.deepEqual(place('sftp://host/srv/wal'), { host: 'host', port: 22, directory: '/srv/wal' })
  assert.deepEqual(place('SFTP://wal%40x@[::1]:2222//srv//w%20al/?private_key_file=/k&known_hosts_file=/h'), {
    user: 'wal@x',
    host: '::1',
    port: 2222,
    directory: '/srv/w al',
    privateKeyFile: '/k',
    knownHostsFile: '/h',
  })
  for (const text of ['sftp://host/srv/wal', 'sftp://u%40x@[::1]:2222/srv/w%20al']) {
    assert.equal(sftpUrl(parseRepositoryUrls(text)[0] as SftpLocation), text)
  }
})

test('every mistake has its own text, and a remedy', () => {
  const mistakes: Array<[string, string, string]> = [
    ['/srv/wal', 'repository "/srv/wal" is not a URL', 'Write "file:///srv/wal".'],
    [
      'srv/wal',
      'repository "srv/wal" is not a URL',
      'Write "file://" and an absolute path, as "file:///srv/wal".',
    ],
    [
      'flie:///srv/wal',
      'repository "flie:///srv/wal" has an unknown scheme "flie"',
      'This version knows "file:///directory", "s3://bucket/prefix", "azure://container/prefix" and "sftp://user@host/directory".',
    ],
    [
      'azure://Wal',
      'repository "azure://Wal" names a container "Wal" that cannot be',
      'Names of containers have 3 to 63 lower-case letters, digits and single "-".',
    ],
    [
      'azure://wal?account=my.account',
      'repository "azure://wal?…" names an account "my.account" that cannot be',
      'Names of storage accounts have 3 to 24 lower-case letters and digits.',
    ],
    [
      'azure://wal?access_tier=archive',
      'repository "azure://wal?…" has an "access_tier" that cannot be used',
      'Write "hot", "cool" or "cold": what is in the archive tier cannot be read at once.',
    ],
    [
      'azure://wal?endpoint=host',
      'repository "azure://wal?…" has an endpoint that is no URL',
      'Write "endpoint=https://host", as the account names it for its blobs.',
    ],
    [
      'azure://wal?ca_file=ca.pem',
      'repository "azure://wal?…" has a "ca_file" that is not an absolute path',
      'Write "ca_file=/path/to/file".',
    ],
    [
      'azure://wal?sig=abc',
      'repository "azure://wal?…" holds credentials',
      'Every role may see this setting: put credentials into the environment of the server, as AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN.',
    ],
    ['s3:bucket/wal', 'repository "s3:bucket/wal" is not a URL', s3Form],
    ['s3:///wal', 'repository "s3:///wal" names no bucket', s3Form],
    ['s3://b/wal', 'repository "s3://b/wal" names a bucket "b" that cannot be', s3Form],
    ['s3://bucket:80/wal', 'repository "s3://…" has a port that is none', s3Form],
    [
      's3://bucket/a/../b',
      'repository "s3://bucket/a/../b" holds "." or ".."',
      'Write the path without them.',
    ],
    ['s3://bucket/a#b', 'repository "s3://bucket/a?…" holds "#"', 'Percent-encode "#" as %23.'],
    [
      's3://bucket/wal?regoin=x',
      'repository "s3://bucket/wal?…" has an unknown parameter "regoin"',
      'Known are "endpoint", "region", "path_style", "ca_file", "profile", "storage_class", "sse", "kms_key_id", "tags".',
    ],
    [
      's3://bucket/wal?region=a&region=b',
      'repository "s3://bucket/wal?…" has "region" twice',
      'Name it once.',
    ],
    [
      's3://bucket/wal?endpoint=host:9000',
      'repository "s3://bucket/wal?…" has an endpoint that is no URL',
      'Write "endpoint=https://host" or "endpoint=https://host:port".',
    ],
    [
      's3://bucket/wal?ca_file=ca.pem',
      'repository "s3://bucket/wal?…" has a "ca_file" that is not an absolute path',
      'Write "ca_file=/path/to/file".',
    ],
    [
      's3://bucket/wal?path_style=maybe',
      'repository "s3://bucket/wal?…" has "path_style" that is neither on nor off',
      'Write "path_style=on" or "path_style=off".',
    ],
    ['sftp://host', 'repository "sftp://host" names no directory', sftpPath],
    ['sftp:///srv/wal', 'repository "sftp:///srv/wal" names no host', sftpForm],
    ['sftp://a b/wal', 'repository "sftp://a b/wal" names a host that cannot be', sftpForm],
    ['sftp://@host/wal', 'repository "sftp://…@host/wal" names a user that cannot be', sftpForm],
    ['sftp://host:0/wal', 'repository "sftp://host:0/wal" has a port that is none', sftpForm],
    ['sftp://u:secret@host/wal', 'repository "sftp://…@host/wal" holds credentials', sftpCredentials],
    ['sftp://host/wal?password=secret', 'repository "sftp://host/wal?…" holds credentials', sftpCredentials],
    [
      'sftp://host/wal?identity=x',
      'repository "sftp://host/wal?…" has an unknown parameter "identity"',
      'Known are "private_key_file", "known_hosts_file".',
    ],
    [
      'sftp://host/wal?private_key_file=id',
      'repository "sftp://host/wal?…" has a "private_key_file" that is not an absolute path',
      'Begin it with a slash.',
    ],
    [
      'file:srv/wal',
      'repository "file:srv/wal" is not an absolute path',
      'Write three slashes, as in "file:///srv/wal".',
    ],
    [
      'file:/srv/wal',
      'repository "file:/srv/wal" is not an absolute path',
      'Write three slashes, as in "file:///srv/wal".',
    ],
    [
      'file://',
      'repository "file://" is not an absolute path',
      'Write three slashes, as in "file:///srv/wal".',
    ],
    [
      'file://srv/wal',
      'repository "file://srv/wal" names the host "srv"',
      'A directory is on this machine: write "file:///srv/wal" if that is the path.',
    ],
    [
      'file:///srv/wal?fsync=off',
      'repository "file:///srv/wal?…" has a part that a directory does not take',
      'Percent-encode "?" as %3F and "#" as %23.',
    ],
    [
      'file:///srv/wal#1',
      'repository "file:///srv/wal?…" has a part that a directory does not take',
      'Percent-encode "?" as %3F and "#" as %23.',
    ],
    [
      'file:///srv/100%',
      'repository "file:///srv/100%" has a broken percent-encoding',
      'Write a percent sign as %25.',
    ],
    [
      'file:///srv/%ff',
      'repository "file:///srv/%ff" has a broken percent-encoding',
      'Write a percent sign as %25.',
    ],
    ['file:///srv/%00', 'repository "file:///srv/%00" holds a zero byte', 'No path can.'],
    [
      'file:///srv/../etc',
      'repository "file:///srv/../etc" holds "." or ".."',
      'Write the path without them.',
    ],
    [
      'file:///srv/%2e%2E/etc',
      'repository "file:///srv/%2e%2E/etc" holds "." or ".."',
      'Write the path without them.',
    ],
    ['file:///srv/./wal', 'repository "file:///srv/./wal" holds "." or ".."', 'Write the path without them.'],
    [
      'file:///a, file:///b, file:///a/',
      '"pgarchivist.repository" names directory "/a" twice',
      'Name each repository once: a file that is twice in one place is there once.',
    ],
    [
      's3://bucket/wal,s3://bucket//wal/?region=here',
      '"pgarchivist.repository" names "bucket/wal/" twice',
      'Name each repository once: a file that is twice in one place is there once.',
    ],
  ]
  for (const [text, message, hint] of mistakes) assert.equal(refusal(text), `${message}\n${hint}`)
})

test('what may be a credential is in no message, wherever it stands', () => {
  const secret = 'S3cr3t'
  const shown: Array<[string, string]> = [
    [
      `file://me:${secret}@/srv/wal`,
      'repository "file://…@/srv/wal" holds credentials\nA directory needs none.',
    ],
    [
      `file://me:${secret}/+@/srv/wal`,
      'repository "file://…@/srv/wal" holds credentials\nA directory needs none.',
    ],
    [`s3://AKIA:${secret}@bucket/wal`, 'repository "s3://…@bucket/wal" holds credentials'],
    [`s3://AKIA:${secret}/+@bucket/wal`, 'repository "s3://…@bucket/wal" holds credentials'],
    [`s3://AKIA:${secret}?x@bucket/wal`, 'repository "s3://…" holds credentials'],
    [`s3://AKIA:x#${secret}@bucket/wal`, 'repository "s3://…" holds credentials'],
    [`s3://AKIA:x@${secret}@bucket/wal`, 'repository "s3://…@bucket/wal" holds credentials'],
    [`s3://bucket/wal?secret=${secret}`, 'repository "s3://bucket/wal?…" holds credentials'],
    [`s3://bucket/wal?secret=${secret}@x`, 'repository "s3://…" holds credentials'],
    [`me:${secret}@host:/srv/wal`, 'repository "…" has an unknown scheme "me"'],
    [`//me:${secret}@host/wal`, 'repository "…@host/wal" is not a URL'],
    [`file://me:${secret}/srv/wal`, 'repository "file://…" holds credentials'],
    [`s3://AKIA:${secret}/bucket`, 'repository "s3://…" names no bucket'],
    [`sftp://me:pa,${secret}@host/wal`, 'repository "sftp://…" names no host'],
    [`s3://AKIA:/${secret}/bucket`, 'repository "s3://…" has a port that is none'],
    [`s3://AKIA:7/${secret}/bucket`, 'repository "s3://…" has a port that is none'],
    [`file://me:7/${secret}`, 'repository "file://…" holds credentials'],
    [`sftp://me:7/${secret}@host/wal`, 'repository "sftp://…@host/wal" holds credentials'],
    [`azure://wal?${secret}+/==`, 'repository "azure://wal?…" has an unknown parameter'],
    [`s3://wal?endpoint=https://AKIA:${secret}`, 'repository "s3://wal?…" has an endpoint that is no URL'],
    [`AccountName=a;AccountKey=${secret};EndpointSuffix=core`, 'repository "…" is not a URL'],
    [
      `azure://AccountName=a;AccountKey=${secret}/wal`,
      'repository "azure://…" names a container that cannot be',
    ],
    [
      `azure://wal?account=a;AccountKey=${secret}`,
      'repository "azure://wal?…" names an account that cannot be',
    ],
    [`file:///a,s3://me:${secret}@b`, 'repository "s3://…@b" holds credentials'],
  ]
  for (const [text, start] of shown) {
    const said = refusal(text)
    assert.ok(said.startsWith(start), said)
    assert.ok(!said.includes(secret), said)
  }
})

test('one URL that holds a comma is one URL', () => {
  assert.deepEqual(parseRepositoryUrl('file:///srv/a,b'), directory('/srv/a,b'))
})
