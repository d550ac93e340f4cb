import type { GucBool, GucInt, GucString } from '../contract/guc.ts'

/** A declaration, and which of the `DefineCustom…Variable` takes it. */
export type RepositoryGuc =
  | ({ type: 'string' } & GucString)
  | ({ type: 'int' } & GucInt)
  | ({ type: 'bool' } & GucBool)

/**
 * The settings of the module `repository`. A server with our library has them from its start, because the library
 * defines the same ones (`_PG_init` in `src/bridge/pg/pgarchivist.c`, and a test holds both equal); the module declares
 * them under both callers in these very words, hooks aside.
 */
export const repositoryGucs = [
  {
    type: 'string',
    name: 'pgarchivist.repository',
    short_desc: 'Where files are archived: URLs, separated by commas.',
    long_desc: 'Credentials do not belong here, because every role may see it.',
    boot_value: '',
    context: 'PGC_SIGHUP',
    flags: ['GUC_LIST_INPUT'],
  },
  {
    type: 'int',
    name: 'pgarchivist.repository_quorum',
    short_desc: 'In how many repositories a file has to be before it counts as archived.',
    long_desc: '0 means in all of them.',
    boot_value: 0,
    min_value: 0,
    max_value: 100,
    context: 'PGC_SIGHUP',
  },
  {
    type: 'int',
    name: 'pgarchivist.compression_level',
    short_desc: 'Level at which archived files are compressed with zstd.',
    boot_value: 1,
    min_value: 1,
    max_value: 19,
    context: 'PGC_SIGHUP',
  },
  {
    type: 'string',
    name: 'pgarchivist.encryption_recipients',
    short_desc: 'Public age keys for which archived files are encrypted.',
    long_desc: 'An empty string means that they are not encrypted.',
    boot_value: '',
    context: 'PGC_SIGHUP',
    flags: ['GUC_LIST_INPUT'],
  },
  {
    type: 'string',
    name: 'pgarchivist.identity_file',
    short_desc: 'File with the age identity that decrypts archived files.',
    boot_value: '',
    context: 'PGC_SIGHUP',
  },
  {
    type: 'string',
    name: 'pgarchivist.spool_directory',
    short_desc: 'Directory for files that are fetched before they are asked for.',
    boot_value: '',
    context: 'PGC_SIGHUP',
  },
  {
    type: 'int',
    name: 'pgarchivist.spool_limit',
    short_desc: 'How much the spool directory may hold.',
    boot_value: 1024 * 1024,
    min_value: 64 * 1024,
    max_value: 2_147_483_647,
    context: 'PGC_SIGHUP',
    flags: ['GUC_UNIT_KB'],
  },
  {
    type: 'bool',
    name: 'pgarchivist.header_check',
    short_desc: 'Checks that a segment is from this cluster before it is archived.',
    boot_value: true,
    context: 'PGC_SIGHUP',
  },
] as const satisfies readonly RepositoryGuc[]
