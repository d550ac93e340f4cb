// The published package brings its S3 client along, which finds credentials wherever they may be, and reads from a real Ceph.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { realFiles } from '../src/system/real-files.ts'
import { installedPackage } from './support/installed-package.ts'
import { openRepositoryAt } from './support/repository-at.ts'
import { RoleServices } from './support/role-services.ts'
import type { Ceph } from './support/running-ceph.ts'
import { ownerOf, S3Profiles } from './support/s3-profiles.ts'
import { sharedCeph } from './support/shared-ceph.ts'

const run = promisify(execFile)
const cluster = { systemIdentifier: '7300000000000000001', walSegmentBytes: undefined, pageMagic: undefined }
const name = '00000002.history'
const content = randomBytes(3_000)
const secrets = {
  containerToken: 'Bearer of-the-container',
  identityToken: 'signed-by-the-cluster',
  sourceAccessKey: 'AKIASOURCE',
}

let directory: string
let installed: string
let ceph: Ceph
let profiles: S3Profiles
let services: RoleServices
let url: string

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'roles-'))
  ;[installed, ceph, profiles] = await Promise.all([
    installedPackage(directory),
    sharedCeph(),
    S3Profiles.begin(),
  ])
  services = await RoleServices.start(ownerOf(ceph), secrets)
  url = `s3://${await ceph.createBucket()}/wal?endpoint=${ceph.endpoint}`
  await profiles.set({ default: ownerOf(ceph) })
  await writeFile(join(directory, name), content)
  await using repository = await openRepositoryAt(url)
  await repository.archive(
    { name, open: () => realFiles.open(join(directory, name), 'read') },
    { cluster, headerCheck: false, compressionLevel: 1, recipients: [] },
  )
})
after(async () => {
  await services?.[Symbol.asyncDispose]()
  await profiles?.[Symbol.asyncDispose]()
  await ceph?.[Symbol.asyncDispose]()
  await rm(directory, { recursive: true, force: true })
})

async function fileWith(text: string): Promise<string> {
  const path = join(directory, randomBytes(6).toString('hex'))
  await writeFile(path, text)
  return path
}

/** Restores a file with a new process that finds nothing but what it is given. */
async function restores(environment: Record<string, string>): Promise<void> {
  const fetched = await fileWith('')
  const command = ['archive-get', '--repository', url, '--system-identifier', cluster.systemIdentifier]
  const none = join(directory, 'none')
  await run(join(installed, 'bin/pgarchivist'), [...command, name, fetched], {
    timeout: 60_000,
    env: {
      PATH: process.env['PATH'],
      AWS_SHARED_CREDENTIALS_FILE: none,
      AWS_CONFIG_FILE: none,
      AWS_REGION: 'us-east-1',
      AWS_EC2_METADATA_DISABLED: 'true',
      ...environment,
    },
  })
  assert.deepEqual(await readFile(fetched), content)
}

test('keys in a file', () => restores(profiles.environment))

test('the role of a container', async () => {
  await restores({
    AWS_CONTAINER_CREDENTIALS_FULL_URI: `${services.endpoint}/container`,
    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: await fileWith(secrets.containerToken),
  })
  assert.ok(services.given.includes('container'))
})

test('the role of a machine', async () => {
  await restores({
    AWS_EC2_METADATA_DISABLED: 'false',
    AWS_EC2_METADATA_SERVICE_ENDPOINT: services.endpoint,
  })
  assert.ok(services.given.includes('machine'))
})

test('a role for a web identity', async () => {
  await restores({
    AWS_ENDPOINT_URL_STS: services.endpoint,
    AWS_ROLE_ARN: services.role,
    AWS_WEB_IDENTITY_TOKEN_FILE: await fileWith(secrets.identityToken),
  })
  assert.ok(services.given.includes('AssumeRoleWithWebIdentity'))
})

test('a role that the user of another profile may take', async () => {
  await restores({
    AWS_ENDPOINT_URL_STS: services.endpoint,
    AWS_SHARED_CREDENTIALS_FILE: await fileWith(
      `[source]\naws_access_key_id = ${secrets.sourceAccessKey}\naws_secret_access_key = secret\n`,
    ),
    AWS_CONFIG_FILE: await fileWith(`[default]\nrole_arn = ${services.role}\nsource_profile = source\n`),
  })
  assert.ok(services.given.includes('AssumeRole'))
})

test('a program that prints credentials', async () => {
  const { accessKey, secretKey } = ownerOf(ceph)
  const printed = JSON.stringify({ Version: 1, AccessKeyId: accessKey, SecretAccessKey: secretKey })
  await restores({
    AWS_CONFIG_FILE: await fileWith(`[default]\ncredential_process = cat ${await fileWith(printed)}\n`),
  })
})

test('a role whose service refuses is a failure that tells no secret', async () => {
  const refused = await fileWith('Bearer of-somebody-else')
  await assert.rejects(
    restores({
      AWS_CONTAINER_CREDENTIALS_FULL_URI: `${services.endpoint}/container`,
      AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: refused,
    }),
    (thrown: { stderr: string; code: number }) => {
      assert.match(thrown.stderr, /there are no credentials/)
      assert.doesNotMatch(thrown.stderr, /of-somebody-else/)
      assert.ok(thrown.code > 125, `status ${thrown.code} would end a recovery`)
      return true
    },
  )
})
