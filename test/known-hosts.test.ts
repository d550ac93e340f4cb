// Which key a server may have, by files that ssh-keyscan and ssh-keygen write.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  fingerprintOf,
  judgeHostKey,
  keyType,
  keyTypeName,
  knownHostKeys,
} from '../src/repository/store/sftp/known-hosts.ts'
import { sshProgram } from './support/running-sshd.ts'
import { temporaryDirectory } from './support/unprivileged.ts'

const sshKeygen = await sshProgram('ssh-keygen')
await using directory = await temporaryDirectory()

/** A public key as it stands in files: its type and base64. */
function newKey(type: string, name: string): { line: string; key: Buffer; fingerprint: string } {
  const file = join(directory.path, name)
  execFileSync(sshKeygen, ['-q', '-t', type, '-N', '', '-C', 'a comment', '-f', file])
  const [kind, base64 = ''] = readFileSync(`${file}.pub`, 'utf8').split(' ')
  const fingerprint =
    execFileSync(sshKeygen, ['-l', '-f', `${file}.pub`], { encoding: 'utf8' }).split(' ')[1] ?? ''
  return { line: `${kind} ${base64}`, key: Buffer.from(base64, 'base64'), fingerprint }
}

const ed25519 = newKey('ed25519', 'ed25519')
const ecdsa = newKey('ecdsa', 'ecdsa')
const rsa = newKey('rsa', 'rsa')

const judge = (text: string, key = ed25519.key, host = 'wal.example', port = 22) =>
  judgeHostKey(knownHostKeys(text, host, port), key)

test('a key is called as ssh calls it', () => {
  for (const { key, fingerprint } of [ed25519, ecdsa, rsa]) assert.equal(fingerprintOf(key), fingerprint)
  const names = [ed25519, ecdsa, rsa].map(({ key }) => keyTypeName(keyType(key)))
  assert.deepEqual(names, ['ED25519', 'ECDSA', 'RSA'])
})

test('a host is known by its name, its address, or a pattern, in lines of several kinds of key', () => {
  const text = `
# wal.example ${rsa.line}
other.example ${rsa.line}
  wal.example,192.0.2.7 ${ed25519.line} a comment
*.example,!secret.example ${ecdsa.line}
`
  assert.equal(judge(text), 'known')
  assert.equal(judge(text, ed25519.key, '192.0.2.7'), 'known')
  assert.equal(judge(text, ecdsa.key), 'known')
  assert.equal(judge(text, ecdsa.key, 'WAL.Example'), 'known')
  assert.equal(judge(text, rsa.key), 'changed')
  assert.equal(judge(text, ecdsa.key, 'secret.example'), 'unknown')
  assert.equal(judge(text, ecdsa.key, 'wal.examples'), 'unknown')
  assert.equal(judge(`wal?example,w.l ${ed25519.line}`, ed25519.key, 'wxl'), 'unknown')
  assert.equal(judge(`wal?example ${ed25519.line}`), 'known')
  assert.equal(judge(''), 'unknown')
})

test('a host is known by its port, or without one, but not by another one', () => {
  const text = `[wal.example]:2222 ${ed25519.line}\n`
  assert.equal(judge(text, ed25519.key, 'wal.example', 2222), 'known')
  assert.equal(judge(text, ed25519.key, 'wal.example', 2223), 'unknown')
  assert.equal(judge(text), 'unknown')
  const both = `${text}wal.example ${ecdsa.line}\n`
  assert.equal(judge(both, ecdsa.key, 'wal.example', 2222), 'changed')
  assert.equal(judge(both, ecdsa.key, 'wal.example', 2223), 'known')
  assert.equal(judge(`[::1]:2222 ${ed25519.line}`, ed25519.key, '::1', 2222), 'known')
})

test('a name that was hashed by ssh-keygen is found', () => {
  const file = join(directory.path, 'known_hosts')
  writeFileSync(file, `wal.example ${ed25519.line}\n[wal.example]:2222 ${ecdsa.line}\n`)
  execFileSync(sshKeygen, ['-q', '-H', '-f', file], { stdio: 'ignore' })
  const text = readFileSync(file, 'utf8')
  assert.doesNotMatch(text, /wal\.example/)
  assert.equal(judge(text), 'known')
  assert.equal(judge(text, ecdsa.key, 'wal.example', 2222), 'known')
  assert.equal(judge(text, ed25519.key, 'other.example'), 'unknown')
})

test('a revoked key is refused, whatever else is said of it', () => {
  const revoked = `@revoked * ${ed25519.line}\nwal.example ${ed25519.line}\n`
  assert.equal(judge(revoked), 'revoked')
  assert.equal(
    judge(`${revoked}[wal.example]:2222 ${ed25519.line}`, ed25519.key, 'wal.example', 2222),
    'revoked',
  )
  assert.equal(judge(`@revoked wal.example ${ed25519.line}`, ecdsa.key), 'unknown')
})

test('lines that cannot be read say nothing, and neither do those of authorities', () => {
  const text = [
    'wal.example',
    'wal.example ssh-ed25519',
    'wal.example ssh-ed25519 !!!!',
    `wal.example ssh-rsa ${ed25519.line.split(' ')[1]}`,
    `@cert-authority wal.example ${ed25519.line}`,
    `@what wal.example ${ed25519.line}`,
    `|2|x|y ${ed25519.line}`,
  ].join('\r\n')
  assert.deepEqual(knownHostKeys(text, 'wal.example', 22), [])
})
