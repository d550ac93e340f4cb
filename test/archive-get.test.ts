// The statuses of restore_command. Status 1, and everything else up to 125, tells a server in recovery that the archive
// ends here, and it opens for business without the rest of its data: so each thing that can break is broken here.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import {
  chmod,
  mkdir,
  open,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { generateX25519Identity, identityToRecipient } from 'age-encryption'
import { type GetOptions, RestoreStage } from './restore/restore-stage.ts'
import { giveAway } from './support/unprivileged.ts'

const name = '00000001000000A900000065'
const missing = '00000001000000A900000066'
const content = Buffer.concat([randomBytes(700_000), Buffer.alloc(348_576)])
const key = await generateX25519Identity()
const recipient = await identityToRecipient(key)

test('a file is delivered with its content and for its owner only, silently, and leaves nothing else behind', async () => {
  await using stage = await RestoreStage.create()
  await stage.archive(name, content)
  assert.deepEqual(await stage.get(name), { status: 0, signal: null, stdout: '', stderr: '' })
  assert.ok(content.equals(await readFile(stage.path('pg_wal/RECOVERYXLOG'))))
  assert.equal((await stat(stage.path('pg_wal/RECOVERYXLOG'))).mode & 0o777, 0o600)
  assert.deepEqual(await stage.wal(), ['RECOVERYXLOG'])
})

test('where the group may read the cluster, it may read what is restored', async () => {
  await using stage = await RestoreStage.create()
  await stage.archive(name, content)
  await chmod(stage.data, 0o750)
  assert.equal((await stage.get(name)).status, 0)
  assert.equal((await stat(stage.path('pg_wal/RECOVERYXLOG'))).mode & 0o777, 0o640)
})

test('all four kinds of WAL files are delivered, and any other name is a mistake', async () => {
  await using stage = await RestoreStage.create()
  for (const each of [name, `${name}.partial`, `${name}.00000028.backup`, '00000002.history']) {
    await stage.archive(each, Buffer.from(`content of ${each}`))
    const dest = `pg_wal/${each}.restored`
    assert.equal((await stage.get(each, { dest })).status, 0, each)
    assert.equal(await readFile(stage.path(dest), 'utf8'), `content of ${each}`)
  }
  for (const each of ['', 'foo', `${name}0`, name.toLowerCase(), `../${name}`, `${name}.history`]) {
    const { status, stderr } = await stage.get(each)
    assert.equal(status, 204, each)
    assert.equal(
      stderr,
      `pgarchivist: could not get "${each}": "${each}" is not the name of a WAL file. Write restore_command = 'pgarchivist archive-get "%f" "%p"'.\n`,
    )
  }
})

test('DEST means the working directory where it is relative, and the data directory is its or the named one', async () => {
  await using stage = await RestoreStage.create()
  await stage.archive(name, content)
  const elsewhere = await stage.directoryFor('elsewhere')
  for (const options of [
    { cwd: '/', dest: stage.path('pg_wal/one') },
    { cwd: stage.path('pg_wal'), dest: '../pg_wal/two' },
    { cwd: elsewhere, dest: './three', args: ['-D', stage.data] },
    { cwd: elsewhere, dest: 'four', args: [`--pgdata=../data`] },
  ] satisfies GetOptions[]) {
    const { status, stderr } = await stage.get(name, options)
    assert.equal(stderr, '')
    assert.equal(status, 0)
    assert.ok(content.equals(await readFile(join(options.cwd, options.dest).replace(/^.*\/\//, '/'))))
  }
})

test('a file that is provably not there is 1, without a word', async () => {
  await using stage = await RestoreStage.create()
  await stage.archive(name, content)
  assert.deepEqual(await stage.get(missing), { status: 1, signal: null, stdout: '', stderr: '' })
  assert.deepEqual(await stage.wal(), [])
})

interface Trouble {
  what: string
  status: number
  says: RegExp
  /** Breaks something; the file `name` is in the repository. */
  cause: (stage: RestoreStage, object: string) => Promise<GetOptions | void>
  encrypted?: boolean
}

const conf = (stage: RestoreStage, text: string) =>
  stage
    .put('postgresql.conf', `pgarchivist.repository = 'file://${stage.repository}'\n${text}`)
    .then(() => {})

const troubles: Trouble[] = [
  {
    what: 'the repository directory is gone',
    status: 201,
    says: /could not open repository directory ".*\/repository": No such file or directory. Mount the disk/,
    cause: stage => rename(stage.repository, `${stage.repository}.away`),
  },
  {
    what: 'the disk with the repository is not mounted, so that only the empty mount point is there',
    status: 201,
    says: /there is no repository at .*"pgarchivist-repository.json" is missing/,
    cause: async stage => {
      await rename(stage.repository, `${stage.repository}.away`)
      await mkdir(stage.repository)
      await giveAway(stage.repository)
    },
  },
  {
    what: 'the marker is missing',
    status: 201,
    says: /"pgarchivist-repository.json" is missing/,
    cause: stage => rm(join(stage.repository, 'pgarchivist-repository.json')),
  },
  {
    what: 'the repository may not be entered',
    status: 201,
    says: /Permission denied/,
    cause: stage => chmod(stage.repository, 0o000),
  },
  {
    what: 'the object may not be read',
    status: 201,
    says: /Permission denied/,
    cause: (_stage, object) => chmod(object, 0o000),
  },
  {
    what: 'the directory of the object may not be entered',
    status: 201,
    says: /Permission denied/,
    cause: (_stage, object) => chmod(join(object, '..'), 0o000),
  },
  {
    what: 'a file is in the place of the repository',
    status: 204,
    says: /repository ".*" is not a directory/,
    cause: async stage => {
      await rename(stage.repository, `${stage.repository}.away`)
      await writeFile(stage.repository, '')
    },
  },
  {
    what: 'the object is shorter than it was',
    status: 202,
    says: /is damaged: .*"pgarchivist verify"/,
    cause: async (_stage, object) => truncate(object, (await stat(object)).size - 1),
  },
  {
    what: 'the object is empty, as after a power cut',
    status: 202,
    says: /is damaged/,
    cause: (_stage, object) => truncate(object, 0),
  },
  {
    what: 'a byte of the object is another one',
    status: 202,
    says: /is damaged/,
    cause: (_stage, object) => flip(object, -10),
  },
  {
    what: 'a byte of its metadata is another one',
    status: 202,
    says: /its metadata block is damaged/,
    cause: (_stage, object) => flip(object, 100),
  },
  {
    what: 'there is something after the object',
    status: 202,
    says: /is damaged/,
    cause: (_stage, object) => writeFile(object, 'x', { flag: 'a' }),
  },
  {
    what: 'it is encrypted and no identity file is set',
    status: 203,
    encrypted: true,
    says: new RegExp(`is encrypted for ${recipient}.*"pgarchivist.identity_file"`),
    cause: async () => {},
  },
  {
    what: 'it is encrypted for somebody else',
    status: 203,
    encrypted: true,
    says: /cannot be opened with this private key/,
    cause: async stage => {
      await stage.put('key', `# a comment\n\n${await generateX25519Identity()}\n`)
      await conf(stage, `pgarchivist.identity_file = 'key'`)
    },
  },
  {
    what: 'the identity file is missing',
    status: 203,
    encrypted: true,
    says: /could not read identity file ".*\/data\/key": No such file or directory/,
    cause: stage => conf(stage, `pgarchivist.identity_file = 'key'`),
  },
  {
    what: 'the identity file may not be read',
    status: 203,
    encrypted: true,
    says: /could not read identity file ".*\/data\/key": Permission denied/,
    cause: async stage => {
      await stage.put('key', `${key}\n`, 0o000)
      await conf(stage, `pgarchivist.identity_file = 'key'`)
    },
  },
  {
    what: 'the identity file may be read by others',
    status: 204,
    encrypted: true,
    says: /may be read or changed by others. Its permissions are 0644. Run "chmod 600 .*\/data\/key"/,
    cause: async stage => {
      await stage.put('key', `${key}\n`, 0o644)
      await conf(stage, `pgarchivist.identity_file = 'key'`)
    },
  },
  {
    what: 'there is no key in the identity file',
    status: 204,
    encrypted: true,
    says: /identity file ".*\/data\/key": line 1 is a public key/,
    cause: async stage => {
      await stage.put('key', `${recipient}\n`)
      await conf(stage, `pgarchivist.identity_file = 'key'`)
    },
  },
  {
    what: 'no repository is set',
    status: 204,
    says: /"pgarchivist.repository" is not set\. Set it in /,
    cause: stage => stage.put('postgresql.conf', '').then(() => {}),
  },
  {
    what: 'the repository is not a URL',
    status: 204,
    says: /repository "\/srv\/wal" is not a URL, in file ".*\/postgresql.conf" line 2. Write "file:\/\/\/srv\/wal"/,
    cause: stage => conf(stage, `pgarchivist.repository = '/srv/wal'`),
  },
  {
    what: 'the configuration file has an error',
    status: 204,
    says: /syntax error in file ".*\/data\/postgresql.conf" line 2, near token "="/,
    cause: stage => conf(stage, `= 'value'\n`),
  },
  {
    what: 'the configuration file may not be read',
    status: 204,
    says: /could not open configuration file ".*\/data\/postgresql.conf": Permission denied/,
    cause: stage => chmod(stage.path('postgresql.conf'), 0o000),
  },
  {
    what: 'the control file is missing',
    status: 204,
    says: /could not read the system identifier from file ".*\/data\/global\/pg_control". Name the data directory with -D/,
    cause: stage => rm(stage.path('global/pg_control')),
  },
  {
    what: 'the repository has nothing of this cluster',
    status: 204,
    says: /has no file of a cluster with system identifier 7. Is this the right repository/,
    cause: async () => ({ args: ['--system-identifier', '7'] }),
  },
  {
    what: 'another repository is in its place',
    status: 204,
    says: /is not the one that was used before/,
    cause: async stage => {
      const marker = join(stage.repository, 'pgarchivist-repository.json')
      await writeFile(
        marker,
        (await readFile(marker, 'utf8')).replace(/"id": "[0-9a-f-]*"/, `"id": "${randomUUID()}"`),
      )
    },
  },
  {
    what: 'the object is of a later format',
    status: 204,
    says: /format 2, which this version cannot read. Use a newer pgarchivist/,
    cause: async (_stage, object) => {
      const block = await readFile(object)
      block[block.indexOf('format 1') + 7] = 0x32
      block.write(
        createHash('sha256')
          .update(block.subarray(0, 4096 - 65))
          .digest('hex'),
        4096 - 65,
      )
      await writeFile(object, block)
    },
  },
  {
    what: 'the directory of DEST is missing',
    status: 205,
    says: /could not create file ".*\/data\/nowhere\/.*": No such file or directory/,
    cause: async () => ({ dest: 'nowhere/RECOVERYXLOG' }),
  },
  {
    what: 'the directory of DEST may not be written to',
    status: 205,
    says: /could not create file ".*\/pg_wal\/.*": Permission denied/,
    cause: stage => chmod(stage.path('pg_wal'), 0o500),
  },
  {
    what: 'a directory is in the place of DEST',
    status: 205,
    says: /could not rename file .* to ".*\/pg_wal\/RECOVERYXLOG": Is a directory/,
    cause: stage => mkdir(stage.path('pg_wal/RECOVERYXLOG')),
  },
  {
    what: 'there is no room for the file',
    status: 205,
    says: /could not write to file ".*": File too large/,
    cause: async () => ({ shell: ['/bin/sh', '-c', 'ulimit -f 1; trap "" XFSZ; exec "$@"', 'sh'] }),
  },
  {
    what: 'Node is not what it should be',
    status: 205,
    says: /^pgarchivist: "\/bin\/false" is not a Node of version/,
    cause: async () => ({ env: { PGARCHIVIST_NODE: '/bin/false' } }),
  },
  {
    what: 'there is no memory for Node',
    status: 205,
    says: /^pgarchivist: address space of a process is limited to /,
    cause: async () => ({ shell: ['/bin/sh', '-c', 'ulimit -v 100000; exec "$@"', 'sh'] }),
  },
  {
    what: 'Node dies',
    status: 205,
    says: /pgarchivist: internal error: Node ended with status \d+\n$/,
    // It may have all the memory that it asks for, but next to no files.
    cause: async () => ({ shell: ['/bin/sh', '-c', 'ulimit -n 20; exec "$@"', 'sh'] }),
  },
  {
    what: 'no process can be started',
    status: 205,
    says: /internal error: the shell ended with status 2\n$/,
    cause: async () => ({ shell: ['/usr/bin/prlimit', '--nproc=0'] }),
  },
  {
    what: 'an option does not exist',
    status: 205,
    says: /^pgarchivist: unknown option '--foo'/,
    cause: async () => ({ args: ['--foo'] }),
  },
  {
    what: 'there is an argument too many',
    status: 205,
    says: /^pgarchivist: too many arguments/,
    cause: async () => ({ args: ['three'] }),
  },
]

async function flip(path: string, at: number): Promise<void> {
  const bytes = await readFile(path)
  const index = at < 0 ? bytes.length + at : at
  bytes[index] = (bytes[index] ?? 0) ^ 0x01
  await writeFile(path, bytes)
}

for (const { what, status: expected, says, cause, encrypted } of troubles) {
  test(`${expected}: ${what}; 2 for a standby; and nothing is left in pg_wal`, async () => {
    await using stage = await RestoreStage.create()
    const object = await stage.archive(name, content, encrypted ? [recipient] : [])
    await stage.put('pg_wal/before', '')
    const options = (await cause(stage, object)) ?? {}
    const before = await stage.wal()
    const { status, stdout, stderr } = await stage.get(name, options)
    assert.equal(stdout, '')
    assert.match(stderr, says)
    assert.doesNotMatch(stderr, /SECRET/)
    assert.equal(status, expected)
    // The line of a message that is meant for people is the only one.
    if (expected < 205) assert.match(stderr, /^[^\n]*\n$/)

    await stage.put('standby.signal', '')
    const { args = [], ...others } = options
    const again = await stage.get(name, { ...others, args: [...args, '-D', stage.data] })
    assert.match(again.stderr, says)
    assert.equal(again.status, 2)
    await chmod(stage.path('pg_wal'), 0o700)
    assert.deepEqual(await stage.wal(), before)
  })
}

test('bash, which gives another status when it cannot start a process, is understood too', async () => {
  await using stage = await RestoreStage.create()
  await stage.archive(name, content)
  // It tries for 15 seconds.
  const { status, stderr } = await stage.get(name, {
    shell: ['/usr/bin/prlimit', '--nproc=0', '/bin/bash', '--posix'],
  })
  assert.match(stderr, /internal error: the shell ended with status 254\n$/)
  assert.equal(status, 205)
})

test('a key that fits opens what is encrypted, whose file may belong to root and be for a group', async () => {
  await using stage = await RestoreStage.create()
  await stage.archive(name, content, [await identityToRecipient(await generateX25519Identity()), recipient])
  await stage.put('key', `# a comment\n\n${await generateX25519Identity()}\n${key}\n`)
  await conf(stage, `pgarchivist.identity_file = 'key'`)
  assert.deepEqual(await stage.get(name), { status: 0, signal: null, stdout: '', stderr: '' })
  assert.ok(content.equals(await readFile(stage.path('pg_wal/RECOVERYXLOG'))))
})

test('what NODE_OPTIONS says to others does not keep a file from being restored', async () => {
  await using stage = await RestoreStage.create()
  await stage.archive(name, content)
  const { status, stderr } = await stage.get(name, { env: { NODE_OPTIONS: '--require /nowhere/at/all' } })
  assert.equal(stderr, '')
  assert.equal(status, 0)
})

test('a file that is found damaged at its end does not replace one that is there', async () => {
  await using stage = await RestoreStage.create()
  const object = await stage.archive(name, content)
  await stage.put('pg_wal/RECOVERYXLOG', 'before')
  await flip(object, -1)
  assert.equal((await stage.get(name)).status, 202)
  assert.equal(await readFile(stage.path('pg_wal/RECOVERYXLOG'), 'utf8'), 'before')
})

test('a link in the place of the repository is followed, so that the disk may be another one', async () => {
  await using stage = await RestoreStage.create()
  await stage.archive(name, content)
  await rename(stage.repository, `${stage.repository}.away`)
  await symlink(`${stage.repository}.away`, stage.repository)
  assert.equal((await stage.get(name)).status, 0)
})

for (const shell of [[], ['/bin/bash', '--posix'], ['/bin/bash']]) {
  test(`a server that stops ends it at once and by the signal${shell.length ? `, with ${shell.join(' ')} as shell` : ''}`, async () => {
    await using stage = await RestoreStage.create()
    // Node opens the pipe, and waits for somebody to write.
    const fifo = stage.path('repository.conf')
    execFileSync('mkfifo', ['--mode=666', fifo])
    await conf(stage, `include 'repository.conf'\n`)
    const child = await stage.start(name, { shell })
    const stderr = text(child.stderr)
    const writer = await open(fifo, 'w') // when Node has opened its end
    const ended = new Promise<[number | null, NodeJS.Signals | null]>(resolve =>
      child.once('exit', (status, signal) => resolve([status, signal])),
    )
    const pid = child.pid ?? 0
    process.kill(-pid, 'SIGTERM')
    const [status, signal] = await ended
    assert.equal(signal, 'SIGTERM', String(status))
    await writer.close()
    // dash cannot be kept from saying how its child has died.
    assert.match(await stderr, /^(Terminated\n)?$/)
    assert.deepEqual(await stage.wal(), [])
  })
}
