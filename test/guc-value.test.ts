import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ErrorReport } from '../src/contract/error-report.ts'
import { formatReal } from '../src/host/guc-number.ts'
import { boolType, enumType, type GucType, type GucValue, intType, realType } from '../src/host/guc-type.ts'

const short_desc = 'As in the server.'
const levels = [
  'debug5',
  'debug4',
  'debug3',
  'debug2',
  'debug1',
  'log',
  'notice',
  'warning',
  'error',
] as const

// The server's own settings of these types, with its limits.
const types = {
  enable_seqscan: boolType({ name: 'enable_seqscan', short_desc, boot_value: true }),
  statement_timeout: intType({
    name: 'statement_timeout',
    short_desc,
    boot_value: 0,
    min_value: 0,
    flags: ['GUC_NOT_IN_SAMPLE', 'GUC_UNIT_MS'],
  }),
  work_mem: intType({
    name: 'work_mem',
    short_desc,
    boot_value: 4096,
    min_value: 64,
    flags: ['GUC_UNIT_KB'],
  }),
  temp_buffers: intType({
    name: 'temp_buffers',
    short_desc,
    boot_value: 1024,
    min_value: 100,
    max_value: 1_073_741_823,
    flags: ['GUC_UNIT_BLOCKS'],
  }),
  vacuum_cost_delay: realType({
    name: 'vacuum_cost_delay',
    short_desc,
    boot_value: 0,
    min_value: 0,
    max_value: 100,
    flags: ['GUC_UNIT_MS'],
  }),
  seq_page_cost: realType({ name: 'seq_page_cost', short_desc, boot_value: 1, min_value: 0 }),
  client_min_messages: enumType({
    name: 'client_min_messages',
    short_desc,
    boot_value: 'notice',
    options: levels,
  }),
  bytea_output: enumType({
    name: 'bytea_output',
    short_desc,
    boot_value: 'hex',
    options: ['escape', 'hex'] as const,
  }),
  commit_delay: intType({
    name: 'commit_delay',
    short_desc,
    boot_value: 0,
    min_value: 0,
    max_value: 100_000,
  }),
  vacuum_cost_limit: intType({
    name: 'vacuum_cost_limit',
    short_desc,
    boot_value: 200,
    min_value: 1,
    max_value: 10_000,
  }),
}

const refused: Partial<ErrorReport> = {}
const notBoolean = { errmsg: 'parameter "enable_seqscan" requires a Boolean value' }
const tooLarge = { errhint: 'Value exceeds integer range.' }
const noTimeUnit = {
  errhint: 'Valid units for this parameter are "us", "ms", "s", "min", "h", and "d".',
}
const noMemoryUnit = { errhint: 'Valid units for this parameter are "B", "kB", "MB", "GB", and "TB".' }
const noLevel = {
  errhint: 'Available values: debug5, debug4, debug3, debug2, debug1, log, notice, warning, error.',
}

// What a PostgreSQL 18 made of each text (15 to 17 the same, but 15 and 16 print ranges without units). A refusal
// says `invalid value for parameter "…": "…"` unless it is given another message here.
const observed: Record<
  string,
  readonly (readonly [text: string, result: GucValue | Partial<ErrorReport>])[]
> = {
  enable_seqscan: [
    ['t', true],
    ['tr', true],
    ['TRUE', true],
    ['truex', notBoolean],
    ['f', false],
    ['fa', false],
    ['false', false],
    ['y', true],
    ['Yes', true],
    ['n', false],
    ['no', false],
    ['on', true],
    ['ON', true],
    ['o', notBoolean],
    ['of', false],
    ['off', false],
    ['offf', notBoolean],
    ['onn', notBoolean],
    ['1', true],
    ['0', false],
    ['10', notBoolean],
    ['', notBoolean],
    [' on', notBoolean],
    ['on ', notBoolean],
    ['2', notBoolean],
    ['ye', true],
    ['TrUe', true],
    ['ON ', notBoolean],
    ['oN', true],
    ['OF', false],
    ['N', false],
    ['0 ', notBoolean],
    ['00', notBoolean],
    ['nO', false],
    ['fals', false],
    ['none', notBoolean],
  ],
  statement_timeout: [
    ['5', 5],
    ['5ms', 5],
    ['1.5s', 1500],
    ['1.0005s', 1000],
    ['0.5', 0],
    ['1.5', 2],
    ['2.5', 2],
    ['0x10', 16],
    ['010', 8],
    ['08', noTimeUnit],
    ['1e3', 1000],
    ['1e-1', 0],
    ['5min', 300000],
    ['5 min', 300000],
    [' 5 min ', 300000],
    ['5  min x', noTimeUnit],
    ['5MIN', noTimeUnit],
    ['5Min', noTimeUnit],
    ['5m', noTimeUnit],
    ['1d', 86400000],
    ['1h', 3600000],
    ['100us', 0],
    ['500us', 0],
    ['501us', 1],
    ['1500us', 2],
    ['2500us', 2],
    [
      '-1',
      {
        errmsg: '-1 ms is outside the valid range for parameter "statement_timeout" (0 ms .. 2147483647 ms)',
      },
    ],
    [
      '-1s',
      {
        errmsg:
          '-1000 ms is outside the valid range for parameter "statement_timeout" (0 ms .. 2147483647 ms)',
      },
    ],
    ['3000000000', tooLarge],
    ['3e9', tooLarge],
    ['1e400', refused],
    ['nan', refused],
    ['inf', refused],
    ['-inf', refused],
    ['', refused],
    ['abc', refused],
    ['s', refused],
    ['5kB', noTimeUnit],
    ['+7', 7],
    ['0x1.8', 2],
    ['0x', noTimeUnit],
    ['0xg', noTimeUnit],
    ['.5', 0],
    ['5.', 5],
    ['.', refused],
    ['1.5.5', noTimeUnit],
    ['25d', tooLarge],
    ['24.9d', tooLarge],
    ['99999999999999999999', tooLarge],
    ['1_000', noTimeUnit],
    ['0b1', noTimeUnit],
    ['5e', noTimeUnit],
    ['5 e3', noTimeUnit],
    ['2147483647.4', 2147483647],
    ['2147483647.6', tooLarge],
    ['1.2345min', 74000],
    [' .5', refused],
    ['-.5', refused],
    ['e5', refused],
    ['.5e1', 5],
    ['.e5', refused],
    ['-0.4', 0],
    ['1.5e', noTimeUnit],
    ['1e+', noTimeUnit],
    ['0x.8', noTimeUnit],
    ['0x1p3', noTimeUnit],
    ['00', 0],
    ['0777', 511],
    ['0x7fffffff', 2147483647],
    ['0xffffffff', tooLarge],
    [
      '-0x1',
      {
        errmsg: '-1 ms is outside the valid range for parameter "statement_timeout" (0 ms .. 2147483647 ms)',
      },
    ],
    ['0X1F', 31],
    ['1.5.', noTimeUnit],
    ['1e3s', 1000000],
    ['1e3 s', 1000000],
    ['2E1', 20],
    ['+.5', refused],
    ['9223372036854775808', tooLarge],
    ['0xffffffffffffffffff', tooLarge],
    ['5\xa0', noTimeUnit],
    ['5\vs', 5000],
    ['1_0s', noTimeUnit],
    ['--5', refused],
    ['+ 5', refused],
    ['60000us', 60],
    ['1e-400s', refused],
    ['Infinity', refused],
    ['0e0', 0],
    ['0.0001d', 0],
    ['1.5h', 5400000],
    ['1.00000001d', 86400000],
  ],
  work_mem: [
    ['64', 64],
    ['64kB', 64],
    ['1MB', 1024],
    ['1.5MB', 1536],
    [
      '0.0001GB',
      { errmsg: '0 kB is outside the valid range for parameter "work_mem" (64 kB .. 2147483647 kB)' },
    ],
    ['30.1GB', 31561728],
    ['1TB', 1073741824],
    ['2TB', tooLarge],
    ['1mb', noMemoryUnit],
    ['1KB', noMemoryUnit],
    ['65536B', 64],
    ['66000B', 64],
    ['66048B', 64],
    ['1 GB', 1048576],
    ['63', { errmsg: '63 kB is outside the valid range for parameter "work_mem" (64 kB .. 2147483647 kB)' }],
    ['2147483647', 2147483647],
    ['2147483648', tooLarge],
    ['1B', { errmsg: '0 kB is outside the valid range for parameter "work_mem" (64 kB .. 2147483647 kB)' }],
    ['1GBx', noMemoryUnit],
    ['1GBxy', noMemoryUnit],
    ['1PB', noMemoryUnit],
  ],
  temp_buffers: [
    ['100', 100],
    ['800kB', 100],
    ['1MB', 128],
    ['8193kB', 1024],
    ['1000000B', 122],
    [
      '12kB',
      { errmsg: '2 8kB is outside the valid range for parameter "temp_buffers" (100 8kB .. 1073741823 8kB)' },
    ],
    ['820kB', 102],
    ['0.9MB', 115],
  ],
  vacuum_cost_delay: [
    ['5', 5],
    ['5.5', 5.5],
    ['1e1', 10],
    [
      '100.5',
      { errmsg: '100.5 ms is outside the valid range for parameter "vacuum_cost_delay" (0 ms .. 100 ms)' },
    ],
    ['0.05s', 50],
    ['50us', 0.05],
    [
      '-0.5',
      { errmsg: '-0.5 ms is outside the valid range for parameter "vacuum_cost_delay" (0 ms .. 100 ms)' },
    ],
    [
      '101',
      { errmsg: '101 ms is outside the valid range for parameter "vacuum_cost_delay" (0 ms .. 100 ms)' },
    ],
    [
      'inf',
      { errmsg: 'Infinity ms is outside the valid range for parameter "vacuum_cost_delay" (0 ms .. 100 ms)' },
    ],
    ['nan', refused],
    ['5 ms', 5],
    ['0x10', 16],
    ['0x1.8p1', 3],
    ['1e-400', refused],
    ['1e400', refused],
    ['1e-310', refused],
    ['5kB', noTimeUnit],
    ['abc', refused],
    ['', refused],
    ['.5', 0.5],
    ['5.', 5],
    ['-0', -0],
    ['0.00001min', 0],
    ['1e-7', 1e-7],
    ['0X.8', 0.5],
    ['0x.', noTimeUnit],
    ['0x1P-1', 0.5],
    ['0xp1', noTimeUnit],
    [
      'infinity',
      { errmsg: 'Infinity ms is outside the valid range for parameter "vacuum_cost_delay" (0 ms .. 100 ms)' },
    ],
    [
      '-INF',
      {
        errmsg: '-Infinity ms is outside the valid range for parameter "vacuum_cost_delay" (0 ms .. 100 ms)',
      },
    ],
    ['infini', noTimeUnit],
    ['nan(1)', refused],
    ['1e', noTimeUnit],
    ['1e+', noTimeUnit],
    ['1.e1', 10],
    ['.e1', refused],
    ['0e-999', 0],
    ['0.000e-999', 0],
    ['12345.678us', 12.3457],
    [
      '0.1234567s',
      { errmsg: '123 ms is outside the valid range for parameter "vacuum_cost_delay" (0 ms .. 100 ms)' },
    ],
    ['99.99999999', 100],
    ['1e2', 100],
    ['00012', 12],
    [
      '1d',
      { errmsg: '8.64e+07 ms is outside the valid range for parameter "vacuum_cost_delay" (0 ms .. 100 ms)' },
    ],
  ],
  seq_page_cost: [
    ['1e6', 1e6],
    ['-1', { errmsg: '-1 is outside the valid range for parameter "seq_page_cost" (0 .. 1.79769e+308)' }],
    [
      '-1e10',
      { errmsg: '-1e+10 is outside the valid range for parameter "seq_page_cost" (0 .. 1.79769e+308)' },
    ],
    ['5ms', refused],
    ['1e300', 1e300],
    ['123456789.123', 123457000],
    [
      '-0.00001234',
      { errmsg: '-1.234e-05 is outside the valid range for parameter "seq_page_cost" (0 .. 1.79769e+308)' },
    ],
    [
      '-1234567.5',
      { errmsg: '-1.23457e+06 is outside the valid range for parameter "seq_page_cost" (0 .. 1.79769e+308)' },
    ],
    [
      'Infinity',
      { errmsg: 'Infinity is outside the valid range for parameter "seq_page_cost" (0 .. 1.79769e+308)' },
    ],
    ['infx', refused],
    [
      'INF',
      { errmsg: 'Infinity is outside the valid range for parameter "seq_page_cost" (0 .. 1.79769e+308)' },
    ],
  ],
  client_min_messages: [
    ['WARNING', 'warning'],
    ['warn', noLevel],
    ['Log', 'log'],
    ['', noLevel],
    ['NOTICE', 'notice'],
    ['notice ', noLevel],
  ],
  bytea_output: [
    ['HEX', 'hex'],
    ['escap', { errhint: 'Available values: escape, hex.' }],
  ],
  commit_delay: [
    ['x', refused],
    ['100001', { errmsg: '100001 is outside the valid range for parameter "commit_delay" (0 .. 100000)' }],
  ],
  vacuum_cost_limit: [['2.5', 2]],
}

for (const [name, type] of Object.entries<GucType<GucValue>>(types)) {
  test(`values of ${name} are taken and refused as by the server`, () => {
    for (const [text, expected] of observed[name] ?? []) {
      const parsed = type.parse(text)
      const outcome = 'refusal' in parsed ? parsed.refusal : sixDigits(parsed.value)
      if (typeof expected === 'object') {
        const errmsg = `invalid value for parameter "${name}": "${text}"`
        assert.deepEqual(outcome, { errmsg, errcode: '22023', ...expected }, text)
      } else {
        assert.equal(outcome, expected, text)
      }
    }
  })
}

// The server shows no more of a real value, so no more was observed.
function sixDigits(value: GucValue): GucValue {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(6)) : value
}

test('real values are printed as %g prints them', () => {
  const printed: readonly (readonly [value: number, text: string])[] = [
    [0, '0'],
    [-0, '-0'],
    [1, '1'],
    [100.5, '100.5'],
    [-0.5, '-0.5'],
    [123_456, '123456'],
    [1_234_567.5, '1.23457e+06'],
    [999_999.5, '1e+06'],
    [1e10, '1e+10'],
    [0.0001, '0.0001'],
    [0.000_012_34, '1.234e-05'],
    [1 / 3, '0.333333'],
    [Number.MAX_VALUE, '1.79769e+308'],
    [Number.POSITIVE_INFINITY, 'Infinity'],
    [Number.NEGATIVE_INFINITY, '-Infinity'],
  ]
  for (const [value, text] of printed) assert.equal(formatReal(value), text)
})
