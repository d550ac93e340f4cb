import type { Difference } from './compare.ts'

/** `reason`: why it is so, on purpose. */
export interface BridgeDifference extends Difference {
  reason: string
  /** Whether it shows depends on who is faster. */
  isOfTiming?: true
}

const sameNameMeanwhile = 'another file of the same name comes into the archive during an attempt'
const changedDirectory = 'the archive directory is changed, to a path that is too long at first'
const missingLibrary = 'the library does not exist, and is then the old one'
const protectedCopy = 'an identical copy in the archive may only be read'
const killed = 'the archiver is killed while it archives, and another file comes a second time'
const afterKilled = ['the server is stopped while the archiver has much to do', 'the server is started again']

/**
 * Where the server's archiver with our library and our basic_archive differs from the same archiver with contrib's, as
 * far as the script shows it. The archiver is the same, so these are about the module and the process it runs in.
 */
export const bridgeDifferences: BridgeDifference[] = [
  {
    title: 'The end of the process beside the archiver is told',
    reason: 'contrib has no such process. For those who debug it.',
    changes: [
      {
        kind: 'only ours',
        part: 'archiver',
        line: /^DEBUG: {2}pgarchivist process \(PID <pid>\) exited with exit code 0$/,
      },
    ],
  },
  {
    title: 'The library has another name',
    reason: 'It is ours.',
    scenes: [missingLibrary],
    changes: [
      {
        kind: 'only theirs',
        part: 'postmaster',
        line: /^LOG: {2}parameter "archive_library" changed to "basic_archive"$/,
      },
      {
        kind: 'only ours',
        part: 'postmaster',
        line: /^LOG: {2}parameter "archive_library" changed to ".*\/pgarchivist\.so"$/,
      },
    ],
  },
  {
    title: 'The path of a WAL file is absolute',
    reason:
      'The module gets an absolute path, so that it may live in a process with another working directory.',
    scenes: ['a WAL file cannot be read for a while'],
    changes: [
      {
        kind: 'reads',
        theirs: /^(ERROR: {2}could not open file ")(pg_wal\/[0-9A-F]{24}")/,
        ours: '$1<data>/$2',
      },
    ],
  },
  {
    title: 'No temporary file is left behind',
    reason:
      'Ours are named after the data directory and not after process and time, so the next attempt removes what is left.',
    changes: [
      {
        kind: 'reads',
        theirs: /(<archive>\/archtemp\.[0-9A-F]{24})\.\d+\.\d+/,
        ours: '$1.<owner>',
      },
    ],
  },
  {
    title: 'No temporary file is left behind',
    reason: 'As above.',
    scenes: [killed, ...afterKilled],
    changes: [
      {
        kind: 'only theirs',
        part: 'archived',
        line: /^<archive>\/archtemp\.[0-9A-F]{24}\.\d+\.\d+, \d+ bytes$/,
      },
    ],
  },
  {
    title: 'Nothing in the archive is ever replaced',
    reason: 'A copy gets its name with link(), which refuses a name that is taken. contrib renames.',
    scenes: [sameNameMeanwhile],
    changes: [
      { kind: 'only theirs', part: 'notes', line: /^the other file is gone$/ },
      { kind: 'only ours', part: 'notes', line: /^the other file is still there$/ },
      {
        kind: 'only ours',
        part: 'archiver',
        line: /^ERROR: {2}archive file "<archive>\/[0-9A-F]{24}" already exists$|^WARNING: {2}archiving write-ahead log file "[0-9A-F]{24}" failed too many times, will try again later$/,
      },
      // One line for each attempt.
      { kind: 'repeats' },
      { kind: 'counts differ', statistics: ['failed_count', 'last_failed_wal', 'last_failed_time'] },
    ],
  },
  {
    title: 'An identical copy that may only be read is success',
    reason:
      'contrib opens the copy for writing in order to fsync it, and PANICs. Opening it for reading does.',
    scenes: [protectedCopy],
    changes: [
      {
        kind: 'only theirs',
        part: 'archiver',
        line: /^PANIC: {2}could not open file "<archive>\/[0-9A-F]{24}": Permission denied$/,
      },
      { kind: 'repeats' },
      {
        kind: 'only theirs',
        part: 'postmaster',
        line: /^LOG: {2}archiver process \(PID <pid>\) was terminated by signal 6: Aborted$/,
      },
      {
        kind: 'counts differ',
        statistics: ['archived_count', 'failed_count', 'last_failed_wal', 'last_failed_time'],
      },
    ],
  },
  {
    title: 'An identical copy that may only be read is success',
    reason: 'The PANIC has set the statistics back already, when the next scene does it again.',
    scenes: [killed],
    changes: [{ kind: 'counts differ', statistics: ['archived_count', 'failed_count'] }],
  },
  {
    title: 'A value that is refused is told',
    reason:
      'The server keeps the old value and says so at DEBUG2 only. A WARNING reaches whoever has written the new one.',
    scenes: [changedDirectory],
    changes: [
      {
        kind: 'reads',
        theirs: /^DEBUG: {2}(invalid value for parameter "basic_archive\.)/,
        ours: 'WARNING:  $1',
      },
      {
        kind: 'only theirs',
        part: 'archiver',
        line: /^DEBUG: {2}configuration file "<data>\/postgresql.conf" contains errors; unaffected changes were applied$/,
      },
    ],
  },
  {
    title: 'A file whose status cannot be changed is archived a number of times',
    reason: 'The server begins again without a pause, with a command in both cases, until the scene changes.',
    isOfTiming: true,
    scenes: ['status files cannot be renamed for a while'],
    changes: [{ kind: 'repeats' }, { kind: 'counts differ', statistics: ['archived_count'] }],
  },
]
