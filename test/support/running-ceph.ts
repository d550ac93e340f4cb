// A real Ceph for tests: one monitor, one object daemon that keeps everything in memory, one S3 gateway; on loopback,
// in a throwaway directory, run by the unprivileged user. It starts in about ten seconds and serves https as well.

import { execFile } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { installedProgram } from './installed-program.ts'
import { type S3Access, type S3Answer, type S3Request, s3Request } from './s3-request.ts'
import { freePorts, ServerProcess } from './server-process.ts'
import { makeTestCertificate } from './test-certificate.ts'
import {
  privateDirectory,
  type TemporaryDirectory,
  temporaryDirectory,
  unprivileged,
  unprivilegedEnvironment,
} from './unprivileged.ts'

const run = promisify(execFile)

/** `current` is Ceph 20; `older` is 18, which completes multipart uploads without looking at conditions. */
export type CephDialect = 'current' | 'older'

// What all objects together may take; the daemon's own memory comes on top.
const memoryBytesMax = 4 * 1024 ** 3

/** How to reach it, and as whom. Plain data, so that one process can tell another. */
export interface CephAddress {
  dialect: CephDialect
  endpoint: string
  /** The same over TLS, with a certificate for `127.0.0.1` and `localhost` signed by the authority in `caFile`. */
  secureEndpoint: string
  /** Over TLS too, at an address that the certificate does not name. */
  mismatchedEndpoint: string
  caFile: string
  region: string
  /** A user who may do everything to what is his own, and administer users. */
  accessKey: string
  secretKey: string
}

export interface CephUser {
  id: string
  accessKey: string
  secretKey: string
}

/** A Ceph that is running, whoever started it. */
export class Ceph implements AsyncDisposable {
  readonly address: CephAddress

  constructor(address: CephAddress) {
    this.address = address
  }

  get endpoint(): string {
    return this.address.endpoint
  }

  get region(): string {
    return this.address.region
  }

  get accessKey(): string {
    return this.address.accessKey
  }

  get secretKey(): string {
    return this.address.secretKey
  }

  /** Of a key that it encrypts with, over TLS, for whoever asks for it by this name. */
  get kmsKeyId(): string {
    return kmsKeyId
  }

  /** One request, signed as the first user unless another is given. */
  async request(options: S3Request, as: Partial<S3Access> = {}): Promise<S3Answer> {
    const { endpoint, region, accessKey, secretKey } = this
    return await s3Request({ endpoint, region, accessKey, secretKey, ...as }, options)
  }

  async #done(options: S3Request): Promise<string> {
    const { status, body } = await this.request(options)
    if (status >= 300)
      throw new Error(`Ceph answered ${status} to ${options.method} "${options.path}": ${body}`)
    return body
  }

  /** A new, empty bucket of the first user. */
  async createBucket(
    name = `bucket-${randomBytes(6).toString('hex')}`,
    options: { objectLock?: boolean } = {},
  ): Promise<string> {
    const headers = options.objectLock ? { 'x-amz-bucket-object-lock-enabled': 'true' } : {}
    await this.#done({ method: 'PUT', path: `/${name}`, headers })
    return name
  }

  /** Removes a bucket with all that is in it, at once, as somebody else might while it is in use. */
  async removeBucket(bucket: string): Promise<void> {
    await this.#done({
      method: 'DELETE',
      path: '/admin/bucket',
      query: { bucket, 'purge-objects': 'true' },
    })
  }

  /** Lets others do what the statements say: the document's `Statement`, as S3 has it. */
  async setBucketPolicy(bucket: string, statements: readonly object[]): Promise<void> {
    const body = JSON.stringify({ Version: '2012-10-17', Statement: statements })
    await this.#done({ method: 'PUT', path: `/${bucket}`, query: { policy: '' }, body })
  }

  /** Allows a user these actions (such as `s3:PutObject`), on the bucket and on what is in it, and nothing else. */
  async allow(bucket: string, user: CephUser, actions: readonly string[]): Promise<void> {
    const resources = [`arn:aws:s3:::${bucket}`, `arn:aws:s3:::${bucket}/*`]
    const principal = { AWS: [`arn:aws:iam:::user/${user.id}`] }
    await this.setBucketPolicy(bucket, [
      { Effect: 'Allow', Principal: principal, Action: actions, Resource: resources },
    ])
  }

  /** A user who owns nothing and may do nothing until a policy says otherwise. */
  async createUser(id = `user-${randomBytes(6).toString('hex')}`): Promise<CephUser> {
    const user = newUser(id)
    await this.#done({
      method: 'PUT',
      path: '/admin/user',
      query: {
        uid: user.id,
        'display-name': user.id,
        'access-key': user.accessKey,
        'secret-key': user.secretKey,
      },
    })
    return user
  }

  /** From now on the user's credentials are refused; or, with false, accepted again. */
  async suspendUser(user: CephUser, suspended = true): Promise<void> {
    await this.#done({
      method: 'POST',
      path: '/admin/user',
      query: { uid: user.id, suspended: String(suspended) },
    })
  }

  /** What somebody else started goes on. */
  async [Symbol.asyncDispose](): Promise<void> {}
}

/** A Ceph of one's own, which can also be away for a while. Most tests can share one: see shared-ceph.ts. */
export class RunningCeph extends Ceph {
  readonly #directory: TemporaryDirectory
  readonly #programs: string
  // In the order in which they were started.
  readonly #processes: ServerProcess[] = []
  #gateway: ServerProcess | undefined

  private constructor(address: CephAddress, directory: TemporaryDirectory, programs: string) {
    super(address)
    this.#directory = directory
    this.#programs = programs
  }

  static async start(options: { dialect?: CephDialect } = {}): Promise<RunningCeph> {
    const { dialect = 'current' } = options
    const programs = await installedProgram('ceph', ...(dialect === 'older' ? ['--older'] : []))
    const directory = await temporaryDirectory()
    let started: RunningCeph | undefined
    try {
      const [monitorPort = 0, plainPort = 0, securePort = 0] = await freePorts(3)
      const certificate = await makeTestCertificate(directory.path, [
        'IP:127.0.0.1',
        'DNS:localhost',
        'DNS:*.localhost',
      ])
      const { accessKey, secretKey } = newUser(firstUser)
      started = new RunningCeph(
        {
          dialect,
          endpoint: `http://127.0.0.1:${plainPort}`,
          secureEndpoint: `https://127.0.0.1:${securePort}`,
          mismatchedEndpoint: `https://127.0.0.2:${securePort}`,
          caFile: certificate.caFile,
          region: 'us-east-1',
          accessKey,
          secretKey,
        },
        directory,
        programs,
      )
      await started.#configure(monitorPort, [
        `endpoint=127.0.0.1:${plainPort}`,
        `ssl_endpoint=127.0.0.1:${securePort}`,
        `ssl_endpoint=127.0.0.2:${securePort}`,
        `ssl_certificate=${certificate.certificateFile}`,
        `ssl_private_key=${certificate.keyFile}`,
      ])
      await started.#startStorage(monitorPort)
      await started.#createFirstUser()
      await started.startGateway()
      return started
    } catch (error) {
      await (started?.stop() ?? directory[Symbol.asyncDispose]())
      throw error
    }
  }

  #at(name: string): string {
    return join(this.#directory.path, name)
  }

  async #configure(monitorPort: number, frontend: readonly string[]): Promise<void> {
    for (const name of ['run', 'mon', 'osd', 'log']) await privateDirectory(this.#at(name))
    const libraries = join(this.#programs, '../lib')
    const settings = {
      global: {
        fsid: clusterId,
        mon_host: `[v2:127.0.0.1:${monitorPort}]`,
        public_addr: '127.0.0.1',
        cluster_addr: '127.0.0.1',
        ms_bind_ipv6: false,
        ms_mon_client_mode: 'crc',
        ms_cluster_mode: 'crc',
        ms_service_mode: 'crc',
        ms_client_mode: 'crc',
        auth_cluster_required: 'none',
        auth_service_required: 'none',
        auth_client_required: 'none',
        // A gateway that was killed counts as one who has to be told of changes for that long.
        osd_client_watch_timeout: 5,
        run_dir: this.#at('run'),
        admin_socket: this.#at('run/$name.asok'),
        pid_file: this.#at('run/$name.pid'),
        log_file: this.#at('log/$name.log'),
        mon_cluster_log_to_file: false,
        plugin_dir: join(libraries, 'ceph'),
        erasure_code_dir: join(libraries, 'ceph/erasure-code'),
        osd_class_dir: join(libraries, 'rados-classes'),
        osd_pool_default_size: 1,
        osd_pool_default_min_size: 1,
        osd_pool_default_pg_num: 4,
        osd_pool_default_pg_autoscale_mode: 'off',
        osd_crush_chooseleaf_type: 0,
        mon_allow_pool_size_one: true,
        // It keeps next to nothing on disk, so it need not care how full that is.
        mon_data_avail_crit: 1,
        mon_data_avail_warn: 2,
      },
      'mon.a': { host: 'localhost', mon_data: this.#at('mon') },
      'osd.0': {
        osd_data: this.#at('osd'),
        osd_objectstore: 'memstore',
        memstore_device_bytes: memoryBytesMax,
        osd_memory_target: 512 * 1024 * 1024,
        // Nothing is compared with another copy, because there is none.
        osd_scrub_begin_hour: 0,
        osd_scrub_end_hour: 0,
      },
      'client.rgw': {
        // Its answers come in two pieces; without this, the second one waits for the first one to be acknowledged: 40 ms.
        rgw_frontends: `beast tcp_nodelay=1 ${frontend.join(' ')}`,
        rgw_data: this.#at('rgw'),
        rgw_enable_apis: 's3, admin',
        // Buckets as part of the host's name are possible under this one.
        rgw_dns_name: 'localhost',
        rgw_crypt_s3_kms_backend: 'testing',
        rgw_crypt_s3_kms_encryption_keys: `${kmsKeyId}=${randomBytes(32).toString('base64')}`,
        rgw_run_sync_thread: false,
        rgw_enable_lc_threads: false,
        // What is deleted frees its memory soon; by default that takes hours.
        rgw_gc_obj_min_wait: 5,
        rgw_gc_processor_period: 5,
      },
    }
    const lines = Object.entries(settings).flatMap(([section, values]) => [
      `[${section}]`,
      ...Object.entries(values).map(([name, value]) => `${name} = ${value}`),
    ])
    await writeFile(this.#at('ceph.conf'), `${lines.join('\n')}\n`)
  }

  async #run(program: string, ...args: string[]): Promise<void> {
    const options = { ...unprivileged, env: unprivilegedEnvironment, cwd: this.#directory.path }
    await run(join(this.#programs, program), args, { ...options, timeout: 60_000, killSignal: 'SIGKILL' })
  }

  async #start(program: string, ...args: string[]): Promise<ServerProcess> {
    return await ServerProcess.start({
      name: `Ceph's ${program}`,
      command: [join(this.#programs, program), '-c', this.#at('ceph.conf'), ...args, '-f'],
      logPath: this.#at(`log/${program}.out`),
      cwd: this.#directory.path,
    })
  }

  async #startStorage(monitorPort: number): Promise<void> {
    const configuration = ['-c', this.#at('ceph.conf')]
    const [monitorMap, storageMap] = [this.#at('monmap'), this.#at('osdmap')]
    await this.#run(
      'monmaptool',
      ...['--create', '--clobber', '--fsid', clusterId],
      ...['--addv', 'a', `[v2:127.0.0.1:${monitorPort}]`, monitorMap],
    )
    await this.#run('osdmaptool', '--createsimple', '1', '--clobber', storageMap, ...configuration)
    const maps = ['--monmap', monitorMap, '--osdmap', storageMap]
    await this.#run('ceph-mon', ...configuration, '--mkfs', '-i', 'a', '--fsid', clusterId, ...maps)
    this.#processes.push(await this.#start('ceph-mon', '-i', 'a'))
    await this.#run('ceph-osd', ...configuration, '-i', '0', '--mkfs', '--osd-uuid', randomUUID())
    this.#processes.push(await this.#start('ceph-osd', '-i', '0'))
  }

  // Waits for the storage by itself, and is the last thing that has to be done without the gateway.
  async #createFirstUser(): Promise<void> {
    await this.#run(
      'radosgw-admin',
      ...['-c', this.#at('ceph.conf'), '-n', 'client.rgw', 'user', 'create'],
      ...[`--uid=${firstUser}`, '--display-name=test', '--max-buckets=0'],
      ...[`--access-key=${this.accessKey}`, `--secret-key=${this.secretKey}`],
      '--caps=users=*;buckets=*',
    )
  }

  /** Starts the gateway (again), and returns when it answers. What was stored before is there. */
  async startGateway(): Promise<void> {
    const gateway = await this.#start('radosgw', '-n', 'client.rgw')
    this.#gateway = gateway
    await gateway.ready(async () =>
      this.request({ path: '/' }).then(
        ({ status }) => status === 200,
        () => false,
      ),
    )
  }

  /** Takes the gateway away in mid-request: connections are cut, and new ones refused. */
  async killGateway(): Promise<void> {
    await this.#gateway?.end('SIGKILL')
  }

  /** The gateway's own log, which says why it refused something. */
  async log(): Promise<string> {
    return await readFile(this.#at('log/client.rgw.log'), 'utf8').catch(() => '')
  }

  get processNumbers(): number[] {
    return [this.#gateway, ...this.#processes].flatMap(each => (each === undefined ? [] : [each.pid]))
  }

  /** Ends all of it, those first that need the others. Nothing of it is to be kept, so nothing is waited for. */
  async stop(): Promise<void> {
    await this.killGateway()
    for (const each of this.#processes.toReversed()) await each.end('SIGKILL')
    await this.#directory[Symbol.asyncDispose]()
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}

const clusterId = '11111111-2222-3333-4444-555555555555'
const firstUser = 'test'
const kmsKeyId = 'test-key'

function newUser(id: string): CephUser {
  // As long as those of Amazon, of which some clients demand so much.
  return {
    id,
    accessKey: randomBytes(10).toString('hex').toUpperCase(),
    secretKey: randomBytes(20).toString('hex'),
  }
}
