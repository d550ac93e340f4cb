// Credentials as they reach the S3 client: profiles in a file, so that one process can come as several users.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Ceph } from './running-ceph.ts'
import { giveAway, type TemporaryDirectory, temporaryDirectory } from './unprivileged.ts'

export interface S3Keys {
  accessKey: string
  secretKey: string
}

export class S3Profiles implements AsyncDisposable {
  readonly #directory: TemporaryDirectory
  readonly #profiles = new Map<string, string>()
  readonly file: string

  private constructor(directory: TemporaryDirectory) {
    this.#directory = directory
    this.file = join(directory.path, 'credentials')
  }

  /** From now on this process has no other credentials than those. */
  static async begin(): Promise<S3Profiles> {
    const profiles = new S3Profiles(await temporaryDirectory())
    await profiles.set({})
    for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name]
    Object.assign(process.env, profiles.environment)
    return profiles
  }

  /** What names the file to a process. */
  get environment(): Record<string, string> {
    return {
      AWS_SHARED_CREDENTIALS_FILE: this.file,
      AWS_CONFIG_FILE: join(this.#directory.path, 'config'),
      AWS_EC2_METADATA_DISABLED: 'true',
    }
  }

  /** Adds profiles, or replaces them. */
  async set(users: Record<string, S3Keys | string>): Promise<void> {
    for (const [name, user] of Object.entries(users)) {
      const lines =
        typeof user === 'string'
          ? user
          : `aws_access_key_id = ${user.accessKey}\naws_secret_access_key = ${user.secretKey}`
      this.#profiles.set(name, `[${name}]\n${lines}\n`)
    }
    await writeFile(this.file, [...this.#profiles.values()].join('\n'))
    await giveAway(this.file)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#directory[Symbol.asyncDispose]()
  }
}

/** The first user of a Ceph, who may do everything to what is his own. */
export function ownerOf({ accessKey, secretKey }: Ceph): S3Keys {
  return { accessKey, secretKey }
}
