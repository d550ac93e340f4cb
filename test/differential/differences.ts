import type { Difference } from './compare.ts'

const duringRecovery = 'a standby finds a file that became ready before'
const afterRecovery = 'a standby is promoted in the middle of a segment'
const sameNameMeanwhile = 'another file of the same name comes into the archive during an attempt'
const unreadableSource = 'a WAL file cannot be read for a while'
const changedDirectory = 'the archive directory is changed, to a path that is too long at first'
const failedRename = 'status files cannot be renamed for a while'
const missingLibrary = 'the library does not exist, and is then the old one'
const bothSet = 'a library and a command are both set for a while'
const protectedCopy = 'an identical copy in the archive may only be read'
const killed = 'the archiver is killed while it archives, and another file comes a second time'
const afterKilled = ['the server is stopped while the archiver has much to do', 'the server is started again']

/**
 * Where we differ from the server's archiver with contrib's basic_archive, as far as the script shows it. Every title
 * is a heading of docs/differences.md, which says why.
 */
export const differences: Difference[] = [
  {
    title: 'Messages are those of version 18',
    majors: [15, 16],
    changes: [
      {
        kind: 'reads',
        theirs: /^(WARNING: {2})archive_mode enabled, yet/,
        ours: '$1"archive_mode" enabled, yet',
      },
      { kind: 'only ours', part: 'archiver', line: /^DETAIL: {2}\S+ is not set\.$/ },
    ],
  },
  {
    title: 'Messages are those of version 18',
    majors: [16],
    scenes: [bothSet],
    changes: [
      {
        kind: 'reads',
        theirs: /both archive_command and archive_library set$/,
        ours: 'both "archive_command" and "archive_library" set',
      },
      {
        kind: 'reads',
        theirs: /Only one of archive_command, archive_library may be set\.$/,
        ours: 'Only one of "archive_command", "archive_library" may be set.',
      },
    ],
  },
  {
    title: 'Messages are those of version 18',
    majors: [17],
    changes: [
      {
        kind: 'reads',
        theirs: /^DETAIL: {2}archive_command is not set\.$/,
        ours: 'DETAIL:  "archive_command" is not set.',
      },
    ],
  },
  {
    title: 'A library and a command are never both accepted',
    majors: [15],
    scenes: [bothSet],
    changes: [
      {
        kind: 'only ours',
        part: 'archiver',
        line: /^FATAL: {2}both "archive_command" and "archive_library" set$|^DETAIL: {2}Only one of /,
      },
    ],
  },
  {
    title: 'The path of a WAL file is absolute',
    scenes: [unreadableSource],
    changes: [
      {
        kind: 'reads',
        theirs: /^(ERROR: {2}could not open file ")(pg_wal\/[0-9A-F]{24}")/,
        ours: '$1<data>/$2',
      },
    ],
  },
  {
    title: 'New files are noticed by watching',
    scenes: [unreadableSource, sameNameMeanwhile],
    changes: [{ kind: 'repeats' }, { kind: 'counts differ', statistics: ['failed_count'] }],
  },
  {
    title: 'Files are archived during recovery too',
    scenes: [duringRecovery],
    changes: [
      {
        kind: 'only ours',
        part: 'archiver',
        line: /^DEBUG: {2}(archiving "[0-9A-F]{24}" via|archive file "<archive>\/[0-9A-F]{24}" already exists with)/,
      },
      { kind: 'reads', theirs: /^([0-9A-F]{24})\.ready$/, ours: '$1.done' },
      {
        kind: 'counts differ',
        statistics: ['archived_count', 'last_archived_wal', 'last_archived_time'],
      },
    ],
  },
  {
    title: 'Files are archived during recovery too',
    scenes: [afterRecovery],
    changes: [
      {
        kind: 'only theirs',
        part: 'archiver',
        line: /^DEBUG: {2}(archiving "0{7}1[0-9A-F]{16}" via|archive file "<archive>\/[0-9A-F]{24}" already exists with)/,
      },
      { kind: 'counts differ', statistics: ['archived_count'] },
    ],
  },
  {
    title: 'No temporary file is left behind',
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
    scenes: [sameNameMeanwhile],
    changes: [
      { kind: 'only theirs', part: 'notes', line: /^the other file is gone$/ },
      { kind: 'only ours', part: 'notes', line: /^the other file is still there$/ },
      {
        kind: 'only ours',
        part: 'archiver',
        line: /^ERROR: {2}archive file "<archive>\/[0-9A-F]{24}" already exists$|^WARNING: {2}archiving write-ahead log file "[0-9A-F]{24}" failed too many times, will try again later$/,
      },
      { kind: 'counts differ', statistics: ['last_failed_wal', 'last_failed_time'] },
    ],
  },
  {
    title: 'An identical copy that may only be read is success',
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
    title: 'The end of an archiver touches nothing else',
    scenes: [killed],
    changes: [
      {
        kind: 'counts differ',
        statistics: ['archived_count', 'failed_count', 'last_failed_wal', 'last_failed_time'],
      },
    ],
  },
  {
    title: 'The end of an archiver touches nothing else',
    scenes: afterKilled,
    changes: [{ kind: 'counts differ', statistics: ['last_failed_wal', 'last_failed_time'] }],
  },
  {
    title: 'A status file that cannot be renamed ends the cycle',
    scenes: [failedRename],
    changes: [{ kind: 'repeats' }, { kind: 'counts differ', statistics: ['archived_count'] }],
  },
  {
    title: 'Names that are not of WAL files are told',
    changes: [
      {
        kind: 'only ours',
        part: 'archiver',
        line: /^LOG: {2}ignoring archive status file "pg_wal\/archive_status\/(000000010000000A00000086\.00000028\.backup1|FEDCBA9876543210\.X|FEDCBA987654321|000000010000000a00000086x)\.ready"$|^DETAIL: {2}Its name is not one that a server gives to a WAL file\.$/,
      },
    ],
  },
  {
    title: 'A value that is refused is told',
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
      {
        kind: 'only theirs',
        part: 'postmaster',
        line: /^LOG: {2}parameter "basic_archive\.archive_directory" changed to "\/<long>"$/,
      },
    ],
  },
  {
    title: 'Changed settings are told by the archiver that takes them over',
    scenes: [missingLibrary],
    changes: [
      {
        kind: 'only theirs',
        part: 'postmaster',
        line: /^LOG: {2}parameter "(archive_library" changed to "basic_archive|basic_archive\.archive_directory" changed to "<archive>)"$/,
      },
    ],
  },
  {
    title: 'Changed settings are told by the archiver that takes them over',
    scenes: [bothSet],
    changes: [
      {
        kind: 'only theirs',
        part: 'postmaster',
        line: /^LOG: {2}parameter "archive_command" changed to ""$/,
      },
    ],
  },
  {
    title: 'What the last cycle archives is counted',
    majors: [15, 16, 17],
    scenes: ['the server is started again'],
    changes: [{ kind: 'counts differ', statistics: ['archived_count'] }],
  },
]
