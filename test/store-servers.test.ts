// The servers that stores are tested with: that they are what they are taken for, and leave nothing behind.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { RunningAzurite } from './support/running-azurite.ts'
import { type CephDialect, RunningCeph } from './support/running-ceph.ts'
import { RunningSshd, sshProgram } from './support/running-sshd.ts'
import { answers } from './support/server-process.ts'
import { sharedCeph } from './support/shared-ceph.ts'

const dialects: readonly CephDialect[] = ['current', 'older']

for (const dialect of dialects) {
  test(`Ceph, ${dialect}, has buckets, users, policies and TLS, comes back after an outage, and is gone after its stop`, async () => {
    await using ceph = await RunningCeph.start({ dialect })
    const bucket = await ceph.createBucket()
    const path = `/${bucket}/a b+c/ü`
    const put = async (body: string) =>
      await ceph.request({ method: 'PUT', path, body, headers: { 'If-None-Match': '*' } })
    assert.equal((await put('first')).status, 200)
    const refusal = await put('second')
    assert.equal(refusal.status, 412)
    assert.match(refusal.body, /<Code>PreconditionFailed</)

    const user = await ceph.createUser()
    const as = { accessKey: user.accessKey, secretKey: user.secretKey }
    const codeOf = async (access: object, key = path) =>
      /<Code>(\w+)</.exec((await ceph.request({ path: key }, access)).body)?.[1]
    assert.equal(await codeOf(as), 'AccessDenied')
    await ceph.allow(bucket, user, ['s3:GetObject'])
    assert.equal((await ceph.request({ path }, as)).body, 'first')
    // Who may not list is not told what is missing.
    assert.equal(await codeOf(as, `/${bucket}/missing`), 'AccessDenied')
    assert.equal(await codeOf({}, `/${bucket}/missing`), 'NoSuchKey')
    await ceph.suspendUser(user)
    assert.equal(await codeOf(as), 'UserSuspended')
    await ceph.suspendUser(user, false)
    assert.equal((await ceph.request({ path }, as)).body, 'first')
    assert.equal(await codeOf({ ...as, secretKey: 'other' }), 'SignatureDoesNotMatch')
    assert.equal(await codeOf({ accessKey: 'unknown' }), 'InvalidAccessKeyId')

    const { secureEndpoint, mismatchedEndpoint, caFile } = ceph.address
    const ca = await readFile(caFile, 'utf8')
    assert.equal((await ceph.request({ path }, { endpoint: secureEndpoint, ca })).body, 'first')
    await assert.rejects(ceph.request({ path }, { endpoint: secureEndpoint }), {
      code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    })
    await assert.rejects(ceph.request({ path }, { endpoint: mismatchedEndpoint, ca }), {
      code: 'ERR_TLS_CERT_ALTNAME_INVALID',
    })

    await ceph.killGateway()
    await assert.rejects(ceph.request({ path }), { code: 'ECONNREFUSED' })
    await ceph.startGateway()
    assert.equal((await ceph.request({ path })).body, 'first')

    await ceph.removeBucket(bucket)
    assert.equal(await codeOf({}), 'NoSuchBucket')

    const pids = ceph.processNumbers
    assert.equal(pids.length, 3)
    await ceph.stop()
    for (const pid of pids) assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' })
    await assert.rejects(readFile(caFile), { code: 'ENOENT' })
  })
}

test('who asks twice for the Ceph that a run shares is given the same one', async () => {
  await using ceph = await sharedCeph()
  await using again = process.env['PGARCHIVIST_TEST_CEPH'] === undefined ? ceph : await sharedCeph()
  assert.equal(again.endpoint, ceph.endpoint)
  const bucket = await ceph.createBucket()
  assert.equal((await again.request({ path: `/${bucket}` })).status, 200)
})

test('Azurite has containers, forgets them when it is killed, and is gone after its stop', async () => {
  await using azurite = await RunningAzurite.start()
  const container = await azurite.createContainer()
  const list = async () =>
    await azurite.request('GET', `/${container}`, { restype: 'container', comp: 'list' })
  assert.equal(await list(), 200)
  await azurite.removeContainer(container)
  assert.equal(await list(), 404)
  await azurite.createContainer()
  const { pid = 0 } = azurite
  await azurite.stop()
  assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' })
})

test('sshd offers SFTP with hard links and fsync to one key, and is gone after its stop', async () => {
  await using sshd = await RunningSshd.start()
  const linked = await sftp(sshd, [`put ${import.meta.filename} a`, 'ln a b'])
  assert.deepEqual([linked.status, linked.refusal], [0, ''])
  assert.ok(linked.extensions.includes('fsync'), linked.extensions.join(', '))
  assert.deepEqual((await readdir(sshd.root)).toSorted(), ['a', 'b'])
  assert.deepEqual(await readFile(join(sshd.root, 'b')), await readFile(import.meta.filename))
  assert.match(await sshd.hostKeyFingerprint(), /^SHA256:[\w+/]{43}$/)

  const stranger = await sftp(sshd, ['ls'], sshd.strangerFile)
  assert.equal(stranger.status, 255)
  assert.match(stranger.refusal, /Permission denied \(publickey\)/)

  await sshd.changeHostKey()
  assert.match((await sftp(sshd, ['ls'])).refusal, /REMOTE HOST IDENTIFICATION HAS CHANGED/)

  const { pid = 0 } = sshd
  await sshd.stop()
  assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' })
  assert.equal(await answers(sshd.port), false)
})

test('sshd without its extensions refuses what needs them', async () => {
  await using sshd = await RunningSshd.start({ refused: ['hardlink', 'fsync'] })
  const { refusal, extensions } = await sftp(sshd, [`put ${import.meta.filename} a`, 'ln a b'])
  assert.equal(refusal, 'Server does not support hardlink@openssh.com extension')
  assert.ok(extensions.includes('posix-rename'), extensions.join(', '))
  assert.ok(!extensions.includes('fsync'), extensions.join(', '))
})

async function sftp(sshd: RunningSshd, commands: readonly string[], identity = sshd.identityFile) {
  const known = `UserKnownHostsFile=${sshd.knownHostsFile}`
  const options = [known, 'GlobalKnownHostsFile=none', 'StrictHostKeyChecking=yes', 'IdentitiesOnly=yes']
  const child = spawn(
    await sshProgram('sftp'),
    [
      ...['-S', await sshProgram('ssh')],
      ...['-vv', '-F', 'none', '-P', String(sshd.port), '-i', identity],
      ...options.flatMap(option => ['-o', option]),
      ...['-b', '-', `${sshd.user}@${sshd.host}`],
    ],
    { stdio: ['pipe', 'ignore', 'pipe'], timeout: 30_000 },
  )
  child.stdin.end(`${commands.join('\n')}\n`)
  const ended = once(child, 'close')
  const messages = await text(child.stderr)
  const [status] = await ended
  const refusal = messages
    .split(/\r?\n/)
    .filter(
      line =>
        line !== '' && !/^(debug\d: |OpenSSH_|Authenticated |Transferred: |Bytes per second: )/.test(line),
    )
    .join('\n')
  const extensions = [...messages.matchAll(/Server supports extension "([\w-]+)/g)].map(([, name]) => name)
  return { status, refusal, extensions }
}
