// A repository on OpenSSH's own server: in order, broken off, and set up wrongly.

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, copyFile, mkdir, readdir, rename, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { promisify } from 'node:util'
import { openRepository } from '../src/cli/open-repository.ts'
import { walSource } from '../src/modules/repository.ts'
import { parseRepositoryUrl } from '../src/repository/repository-url.ts'
import { sendTo } from '../src/repository/store/requests.ts'
import type { SftpDriver } from '../src/repository/store/sftp/sftp-driver.ts'
import { withRetries } from '../src/repository/store/with-retries.ts'
import { verify } from '../src/repository/verify.ts'
import { realClock } from '../src/system/clock.ts'
import { realFiles } from '../src/system/real-files.ts'
import { realSockets } from '../src/system/real-sockets.ts'
import type { Sockets } from '../src/system/sockets.ts'
import { archiveOptions, failure, segmentBytes } from './support/repository-stage.ts'
import { RunningSshd, type RunningSshdOptions, sshProgram } from './support/running-sshd.ts'
import { type SftpClientOptions, type SftpPlace, sftpDriver, sftpUrlOf } from './support/sftp-store.ts'
import { giveAway, temporaryDirectory } from './support/unprivileged.ts'
import { anySystemIdentifier, walSegment } from './support/wal-segment.ts'

const run = promisify(execFile)
const name = '000000010000000000000001'
const key = `${anySystemIdentifier}/wal/00000001/00000000/${name}.pgarchivist`
const bytes = (text: string) => [Buffer.from(text)]

const sshd = await RunningSshd.start()
after(() => sshd.stop())

let places = 0

/** An empty directory of its own on the server. */
async function newPlace(server = sshd): Promise<string> {
  const directory = join(server.root, `place ${++places}`)
  await mkdir(directory)
  await giveAway(directory)
  return directory
}

async function driverAt(directory: string, options?: SftpClientOptions): Promise<SftpDriver> {
  return sftpDriver(sftpUrlOf(sshd, { directory }), options)
}

/** What is said of a place, without what is the same each time. */
async function refusal(server: RunningSshd, place: SftpPlace = {}, options: SftpClientOptions = {}) {
  await using driver = sftpDriver(sftpUrlOf(server, place), options)
  return await failure(driver.handlers.inspect(undefined))
}

/** A socket that tells of each piece that is written to it. */
function watchedSockets(written: (bytes: number) => void): Sockets {
  return {
    connect: async (host, port, timeoutMs) => {
      const socket = await realSockets.connect(host, port, timeoutMs)
      const write = socket.write.bind(socket)
      socket.write = (chunk: Uint8Array) => {
        written(chunk.length)
        return write(chunk)
      }
      return socket
    },
  }
}

test('WAL is archived to a server, fetched from there, and found to be whole', async () => {
  await using directory = await temporaryDirectory()
  const place = await newPlace()
  await using repository = await openRepository(parseRepositoryUrl(sftpUrlOf(sshd, { directory: place })), {})
  await repository.inspect()
  const content = walSegment({ name, segmentBytes })
  const path = join(directory.path, name)
  await writeFile(path, content)
  const archive = () => repository.archive(walSource(realFiles, name, path), archiveOptions)
  assert.equal(await archive(), 'archived')
  assert.equal(await archive(), 'already archived')
  const pieces: Uint8Array[] = []
  const fetch = (wanted: string) =>
    repository.fetch(
      { systemIdentifier: anySystemIdentifier, name: wanted, identities: async () => [] },
      async piece => void pieces.push(piece),
    )
  assert.equal(await fetch('000000010000000000000002'), false)
  assert.ok(await fetch(name))
  assert.deepEqual(Buffer.concat(pieces), Buffer.from(content))
  assert.deepEqual((await readdir(join(place, key, '..'))).sort(), [`${name}.pgarchivist`])
  const report = await verify({
    repository,
    clock: realClock,
    jobs: 2,
    identities: async () => [],
    decode: true,
  })
  assert.deepEqual([report.objects, report.findings], [1, []])
})

describe('connections that break', () => {
  test('a server that says nothing any more is given up', async () => {
    const place = await newPlace()
    // The first pause passes at once, in which nothing came; then nothing answers the question either.
    let pauses = 0
    const clock = {
      ...realClock,
      sleep: async (ms: number, signal?: AbortSignal) => {
        if (isSilent && ms === 15_000) pauses++
        else await realClock.sleep(ms, signal)
      },
    }
    let isSilent = false
    await using driver = await driverAt(place, {
      clock,
      sockets: {
        connect: async (...where) => {
          const socket = await realSockets.connect(...where)
          silence = () => {
            isSilent = true
            socket.write = () => true
          }
          return socket
        },
      },
    })
    let silence = () => {}
    await driver.handlers.inspect(undefined)
    silence()
    assert.equal(
      await failure(driver.handlers.put({ key: 'a', body: bytes('a') })),
      'UNREACHABLE: the connection to server "127.0.0.1" broke: it did not answer\n' +
        'HINT: It is tried again. If it stays so, the log of sshd on the server says more.',
    )
    assert.equal(pauses, 2)
    isSilent = false
    assert.equal(await driver.handlers.put({ key: 'a', body: bytes('a') }), 'written')
  })

  test('an idle connection keeps no process alive', async () => {
    const url = sftpUrlOf(sshd, { directory: await newPlace() })
    const program = `
      import { sftpDriver } from ${JSON.stringify(import.meta.resolve('./support/sftp-store.ts'))}
      const driver = sftpDriver(${JSON.stringify(url)})
      console.log(await driver.handlers.put({ key: 'a', body: [Buffer.from('a')] }))
    `
    const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', program], {
      timeout: 60_000,
    })
    assert.equal(stdout, 'written\n')
  })

  test('one that is cut at any moment leaves the whole object or none, and the next attempt comes through', async () => {
    const place = await newPlace()
    const body = [Buffer.alloc(3_000, 'x')]
    // The library hands a request to the socket in three pieces.
    const writesPerRequest = 3
    let cuts = 0
    // Each step of the way in turn, after the connection is made.
    for (let round = 0; ; round++) {
      const roundKey = `1/wal/${round}`
      let writes = 0
      let isConnected = false
      let cut: Promise<void> | undefined
      await using driver = await driverAt(place, {
        sockets: watchedSockets(() => {
          if (isConnected && ++writes === writesPerRequest * round + 1) cut = sshd.killSessions()
        }),
      })
      await driver.handlers.inspect(undefined)
      isConnected = true
      const outcome = await driver.handlers.put({ key: roundKey, body }).catch((thrown: unknown) => thrown)
      await cut
      // A driver sends each request once; it may not have noticed yet that its connection is gone.
      const send = withRetries(sendTo(driver), { clock: realClock, random: () => 0, totalMs: 60_000 })
      const whole = { key: roundKey, start: 0, bytes: 1_000_000 }
      if (outcome instanceof Error) {
        cuts++
        assert.match(outcome.message, /^the connection to server "127\.0\.0\.1" broke/)
        const there = await send('get', whole)
        assert.ok(there === undefined || there.bytes.length === 3_000)
        const again = await send('put', { key: roundKey, body })
        assert.equal(again, there === undefined ? 'written' : 'exists')
        // It may be that its name is not on disk: it is not said to be.
        if (again === 'exists') assert.equal(await send('confirm', { key: roundKey }), 'distrusted')
        assert.equal(await send('put', { key: roundKey, body, replace: true }), 'written')
        assert.equal(await send('confirm', { key: roundKey }), 'durable')
      }
      const found = await send('get', whole)
      assert.equal(Buffer.compare(found?.bytes ?? Buffer.alloc(0), body[0] ?? Buffer.alloc(0)), 0)
      if (cut === undefined) break
    }
    assert.ok(cuts > 5, `${cuts} cuts`)
  })

  test('a server that was restarted is connected to again', async () => {
    await using server = await RunningSshd.start()
    await using driver = sftpDriver(sftpUrlOf(server))
    assert.equal(await driver.handlers.put({ key: 'a', body: bytes('a') }), 'written')
    await server.kill()
    await assert.rejects(driver.handlers.confirm({ key: 'a' }))
    assert.match(
      await failure(driver.handlers.put({ key: 'b', body: bytes('b') })),
      /^UNREACHABLE: could not connect to server "127\.0\.0\.1" on port \d+: Connection refused\nHINT: Is sshd running there/,
    )
    await server.restart()
    assert.equal(await driver.handlers.put({ key: 'b', body: bytes('b') }), 'written')
  })
})

describe('what is on the server', () => {
  test('a root that is missing is not the end of the archive', async () => {
    const place = await newPlace()
    await using driver = await driverAt(place)
    await driver.handlers.put({ key: 'a/b', body: bytes('x') })
    await rename(place, `${place} away`)
    const missing =
      `UNREACHABLE: there is no repository directory "${place}" on server "127.0.0.1"\n` +
      'HINT: Mount the disk on the server, or make an empty directory there that belongs to user "archivist": it is never made for you.'
    const { get, list, put } = driver.handlers
    assert.equal(await failure(get({ key: 'a/b', start: 0, bytes: 1 })), missing)
    assert.equal(await failure(get({ key: 'c', start: 0, bytes: 1 })), missing)
    assert.equal(await failure(list({ prefix: '', limit: 1 })), missing)
    assert.equal(await failure(list({ prefix: 'a/', limit: 1 })), missing)
    assert.equal(await failure(put({ key: 'a/b', body: bytes('y') })), missing)
    assert.equal(await failure(put({ key: 'n/b', body: bytes('y') })), missing)
  })

  test('a directory that leads out of the repository is neither written to nor read from', async () => {
    const place = await newPlace()
    await using driver = await driverAt(place)
    await driver.handlers.put({ key: 'a/b', body: bytes('x') })
    const outside = `${place} outside`
    await rename(join(place, 'a'), outside)
    await symlink(outside, join(place, 'a'))
    const out = `SETTINGS: "${place}/a" leads out of the repository, to "${outside}"\nHINT: Remove the symbolic link.`
    const { get, put } = driver.handlers
    assert.equal(await failure(get({ key: 'a/b', start: 0, bytes: 1 })), out)
    assert.equal(await failure(put({ key: 'a/c', body: bytes('y') })), out)
    assert.deepEqual(await readdir(outside), ['b'])
  })

  test('what was left unfinished is found in many pages where the server is far away', async () => {
    const place = await newPlace()
    // As if each directory took ten seconds.
    let nowMs = 0
    await using driver = await driverAt(place, {
      clock: { ...realClock, monotonic: () => (nowMs += 10_000) },
    })
    const { beginUpload, listUploads, put } = driver.handlers
    const keys = ['0', '1', '2', '3'].map(log => `1/wal/00000001/0000000${log}/${name}.pgarchivist`)
    for (const each of keys) {
      await put({ key: each, body: bytes('x') })
      await beginUpload({ key: each })
    }
    const found: string[] = []
    let pages = 0
    const pagesMax = 100
    for (let after: string | undefined; pages === 0 || after !== undefined; pages++) {
      assert.ok(pages < pagesMax, `the page after "${after}" comes no further`)
      const { uploads, next } = await listUploads({ after })
      found.push(...uploads.map(upload => upload.key))
      after = next
    }
    assert.deepEqual(found, keys)
    // One for each directory on the way, and for each with something in it.
    assert.equal(pages, 1 + 3 + keys.length)
  })

  test('a disk that is full, and then one that is read-only, are called so', async () => {
    await using server = await RunningSshd.start({ diskMegabytes: 4 })
    await using driver = sftpDriver(sftpUrlOf(server))
    const { put } = driver.handlers
    const said = (text: string) => text.replaceAll(/"[^"]*\.tmp"/g, 'TEMPORARY')
    assert.equal(
      said(await failure(put({ key: 'a', body: [Buffer.alloc(6_000_000)] }))),
      'UNREACHABLE: could not write to file TEMPORARY on server "127.0.0.1": No space left on device\n' +
        'HINT: Make room in the repository; archiving goes on by itself then.',
    )
    assert.deepEqual(await readdir(server.disk), [])
    assert.equal(await put({ key: 'a', body: bytes('a') }), 'written')
    await server.onDisk('mount', '-o', 'remount,ro', server.root)
    assert.equal(
      said(await failure(put({ key: 'b', body: bytes('b') }))),
      'UNREACHABLE: could not create file TEMPORARY on server "127.0.0.1": Read-only file system\n' +
        'HINT: Mount the file system of the repository on the server so that it can be written.',
    )
  })

  test('a directory that may not be written to is called so', async () => {
    const place = await newPlace()
    await chmod(place, 0o500)
    await using driver = await driverAt(place)
    assert.match(
      await failure(driver.handlers.put({ key: 'a', body: bytes('a') })),
      /^UNREACHABLE: could not create file ".*\.tmp" on server "127\.0\.0\.1": Permission denied\nHINT: Let user "archivist" of the server own the directory of the repository\. /,
    )
  })
})

describe('mistakes', () => {
  const without = async (options: RunningSshdOptions) => {
    await using server = await RunningSshd.start(options)
    return await refusal(server)
  }
  const remedy =
    'HINT: Without them nothing that is stored would be certain. The SFTP server of OpenSSH has them, unless its options -R, -P or -p take them away.'

  test('a server without hard links or fsync is refused', async () => {
    const missing = (list: string) => `SETTINGS: server "127.0.0.1" does not offer ${list}\n${remedy}`
    assert.equal(await without({ refused: ['hardlink'] }), missing('"hardlink@openssh.com"'))
    assert.equal(await without({ refused: ['fsync'] }), missing('"fsync@openssh.com"'))
    assert.match(await without({ readOnly: true }), /^SETTINGS: server "127\.0\.0\.1" does not offer /)
  })

  test('a server without SFTP, or with another program in its place, is called so', async () => {
    assert.equal(
      await without({ subsystem: undefined }),
      'SETTINGS: server "127.0.0.1" has no SFTP subsystem\nHINT: Put the line "Subsystem sftp internal-sftp" into its sshd_config.',
    )
    assert.match(
      await without({ subsystem: '/bin/false' }),
      /^SETTINGS: the SFTP subsystem of server "127\.0\.0\.1" ended at once\nHINT: Does the program exist/,
    )
    assert.match(
      await without({ subsystem: '/bin/echo Welcome to this fine server' }),
      /^SETTINGS: (server "127\.0\.0\.1" does not speak SFTP|the SFTP subsystem of server)/,
    )
  })

  test('a server that gives no session is called so, and one that gives few has to do', async () => {
    assert.equal(
      await without({ settings: ['MaxSessions 0'] }),
      'UNREACHABLE: server "127.0.0.1" gives user "archivist" no session\nHINT: There may be too many: see MaxSessions in its sshd_config.',
    )
    await using server = await RunningSshd.start({ settings: ['MaxSessions 1'] })
    await using driver = sftpDriver(sftpUrlOf(server))
    const outcomes = await Promise.all(
      Array.from({ length: 12 }, (_, index) => driver.handlers.put({ key: `k${index}`, body: bytes('x') })),
    )
    assert.deepEqual(new Set(outcomes), new Set(['written']))
  })

  test('a host key that is not known, or another one than is known, is refused with its fingerprint', async () => {
    await using server = await RunningSshd.start()
    await using directory = await temporaryDirectory()
    const file = join(directory.path, 'known_hosts')
    const before = await server.hostKeyFingerprint()
    const scan = `ssh-keyscan -p ${server.port} 127.0.0.1 >> ${file}`
    assert.equal(
      await refusal(server, { knownHostsFile: file }),
      `SETTINGS: ED25519 key ${before} of server "127.0.0.1" is not in file "${file}"\n` +
        `HINT: If the administrator of the server says that this is its key ("ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub" there), run "${scan}".`,
    )
    await server.changeHostKey()
    const now = await server.hostKeyFingerprint()
    assert.equal(
      (await refusal(server)).split('\nHINT')[0],
      `SETTINGS: ED25519 key ${now} of server "127.0.0.1" is not the one in file "${server.knownHostsFile}"\nDETAIL: Known is ED25519 ${before}.`,
    )
  })

  test('whoever is not let in is told what the server takes and what it was offered', async () => {
    const said = await refusal(sshd, { privateKeyFile: sshd.strangerFile })
    assert.equal(
      said,
      `SETTINGS: server "127.0.0.1" did not accept user "archivist"\nDETAIL: It takes publickey; it was offered the key in file "${sshd.strangerFile}".\n` +
        'HINT: Name a key with "private_key_file" in the URL, and append its public half to ~/.ssh/authorized_keys of "archivist" on the server.',
    )
    assert.match(await refusal(sshd, { privateKeyFile: undefined }), /; there was nothing to offer\.\n/)
    assert.match(
      await refusal(sshd, { privateKeyFile: undefined }, { environment: { agent: '/nowhere' } }),
      /it was offered the keys of ssh-agent\. The agent could not be asked: Failed to connect to agent\.\n/,
    )
  })

  test('a private key that others may read, or that is none, is not used', async () => {
    await using directory = await temporaryDirectory()
    const file = join(directory.path, 'key')
    await writeFile(file, 'not a key', { mode: 0o644 })
    assert.equal(
      await refusal(sshd, { privateKeyFile: file }),
      `SETTINGS: private key file "${file}" may be read or changed by others\nDETAIL: Its permissions are 0644.\nHINT: Run "chmod 640 ${file}".`.replace(
        '640',
        process.geteuid?.() === 0 ? '640' : '600',
      ),
    )
    await chmod(file, 0o600)
    assert.match(
      await refusal(sshd, { privateKeyFile: file }),
      /^SETTINGS: private key file ".*" holds no key that can be used\n/,
    )
    assert.match(
      await refusal(sshd, { privateKeyFile: `${file}2` }),
      /^SETTINGS: could not read private key file ".*key2": No such file or directory\n/,
    )
  })

  test('a key with a passphrase takes it from the environment, or comes from ssh-agent', async () => {
    await using directory = await temporaryDirectory()
    const file = join(directory.path, 'key')
    await copyFile(sshd.identityFile, file)
    await chmod(file, 0o600)
    await run(await sshProgram('ssh-keygen'), ['-p', '-P', '', '-N', 'open sesame', '-f', file])
    const open = async (passphrase: string | undefined) =>
      await refusal(sshd, { privateKeyFile: file, directory: place }, { environment: { passphrase } })
    const place = await newPlace()
    const remedy =
      'HINT: Set PGARCHIVIST_SFTP_PASSPHRASE in the environment of the server, or let ssh-agent hold the key.'
    assert.equal(await open(undefined), `SETTINGS: private key file "${file}" needs a passphrase\n${remedy}`)
    assert.equal(
      await open('open barley'),
      `SETTINGS: private key file "${file}" has another passphrase\n${remedy}`,
    )
    assert.equal(await open('open sesame'), 'it did not fail')

    const agent = join(directory.path, 'agent')
    const program = spawn(await sshProgram('ssh-agent'), ['-D', '-a', agent], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      await once(program.stdout, 'data')
      await chmod(sshd.identityFile, 0o600)
      await run(await sshProgram('ssh-add'), ['-q', sshd.identityFile], { env: { SSH_AUTH_SOCK: agent } })
      const environment = { agent }
      assert.equal(
        await refusal(sshd, { privateKeyFile: undefined, directory: place }, { environment }),
        'it did not fail',
      )
    } finally {
      program.kill('SIGKILL')
    }
  })

  test('what is no server, or none of SSH, is told apart', async () => {
    assert.match(
      await refusal(sshd, { host: 'no-such-host.invalid' }),
      /^UNREACHABLE: could not find the address of server "no-such-host\.invalid"\n/,
    )
    const closing = createServer(socket => socket.destroy())
    await new Promise<void>(resolve => closing.listen(0, '127.0.0.1', resolve))
    const { port } = closing.address() as { port: number }
    assert.match(
      await refusal(sshd, { port }),
      /^UNREACHABLE: (server "127\.0\.0\.1" on port \d+ closed the connection at once\nHINT: Too many connections|could not connect to server "127\.0\.0\.1" on port \d+: Connection reset by peer)/,
    )
    closing.close()
  })
})
