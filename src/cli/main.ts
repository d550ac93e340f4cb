/** The front door: reads the command line, and loads no more than the one command that it names. */
import { Command, InvalidArgumentError, Option } from 'commander'
import { packageVersion } from './own-package.ts'

const nodeVersionNeeded = [24, 21] as const

function refuseOldNode(): void {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const [majorNeeded, minorNeeded] = nodeVersionNeeded
  if (major > majorNeeded || (major === majorNeeded && minor >= minorNeeded)) return
  process.stderr.write(
    `pgarchivist: Node ${nodeVersionNeeded.join('.')} or newer is needed, this is ${process.versions.node}\n`,
  )
  process.exit(1)
}

function collect(value: string, before: string[] | undefined): string[] {
  if (!value.includes('=')) throw new InvalidArgumentError('It has to be NAME=VALUE.')
  return [...(before ?? []), value]
}

const dataDirectoryOption = () =>
  new Option('-D, --pgdata <DIR>', 'data directory of the server').env('PGDATA').makeOptionMandatory()

/** For commands whose status is an answer: 0 for help that was asked for alone, and otherwise this one. */
function exitWith(wrong: number): (error: { exitCode: number }) => void {
  return ({ exitCode }) => process.exit(exitCode === 0 && process.argv.length === 4 ? 0 : wrong)
}

const program = new Command('pgarchivist')
  .description('PostgreSQL archive modules, in TypeScript.')
  .version(packageVersion(), '-V, --version')
  .showHelpAfterError('Try "pgarchivist --help".')
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'pgarchivist: ')) })

program
  .command('archiver')
  .showHelpAfterError('Try "pgarchivist archiver --help".')
  .description("archive completed WAL files with a module, as the server's own archiver would")
  .addOption(dataDirectoryOption())
  .option('-c, --set <NAME=VALUE>', 'setting, overrides the configuration files; may be repeated', collect)
  .option('--config-file <FILE>', "configuration file to read instead of the server's postgresql.conf")
  .addOption(
    new Option('--log-format <FORMAT>', 'form of log lines').choices(['text', 'json']).default('text'),
  )
  .addHelpText(
    'after',
    `
Signals: SIGHUP reloads the configuration files. SIGTERM and SIGINT end it after a last cycle; a second one, or
SIGQUIT, at once.

Exit status: 0 after an orderly end, 1 if it could not start or had to be ended before it was ready.`,
  )
  .action(async options => {
    const { archiverCommand } = await import('./archiver-command.ts')
    process.exitCode = await archiverCommand({ ...options, set: options.set ?? [] })
    process.exit()
  })

program
  .command('info')
  .showHelpAfterError('Try "pgarchivist info --help".')
  .description(
    'show what was archived from a data directory, what waits, and what is wrong with the settings',
  )
  .addOption(dataDirectoryOption())
  .addOption(new Option('--output <FORMAT>', 'form of the output').choices(['text', 'json']).default('text'))
  .action(async options => {
    const { infoCommand } = await import('./info-command.ts')
    process.exitCode = await infoCommand(options)
  })

program
  .command('archive-get')
  .showHelpAfterError('Try "pgarchivist archive-get --help".')
  .exitOverride(exitWith(205))
  .description("put a file of the repository where the server wants it: PostgreSQL's restore_command")
  .argument('<name>', 'name of the WAL file, "%f"')
  .argument('<dest>', 'where to put it, "%p"')
  .option('-D, --pgdata <DIR>', 'data directory, if it is neither the working directory nor where DEST is')
  .option('--repository <URLS>', 'instead of the setting "pgarchivist.repository"')
  .option('--system-identifier <ID>', 'of the cluster whose WAL it is, instead of that of the data directory')
  .option('--identity-file <FILE>', 'instead of the setting "pgarchivist.identity_file"')
  .option('--spool-directory <DIR>', 'instead of the setting "pgarchivist.spool_directory"')
  .option('--spool-limit <SIZE>', 'instead of the setting "pgarchivist.spool_limit"')
  .addHelpText(
    'after',
    `
Exit status: 0 if the file was delivered and verified, 1 if it is not in the repository. 201 if the repository cannot
be reached, 202 if what is stored is damaged, 203 if the key is missing or wrong, 204 if a setting is, 205 for anything
else; for a standby each of these is 2, after which it goes on and asks again.`,
  )
  .action(async (name, dest, options) => {
    // Its statuses are for the launcher, which translates them; as "archive-get -- …" is not its form.
    if (process.env['PGARCHIVIST_LAUNCHED_WITH'] === undefined) {
      process.stderr.write('pgarchivist: "archive-get" has to be the first argument\n')
      process.exit(205)
    }
    const { archiveGetCommand } = await import('./archive-get-command.ts')
    process.exit(await archiveGetCommand(name, dest, options))
  })

/** For numbers that are counted from 1; a timeline may be written in hexadecimal, as in the names of WAL files. */
function atLeastOne(value: string): number {
  const number = /^(\d+|0x[0-9a-f]+)$/i.test(value) ? Number(value) : 0
  if (number < 1 || number > 0xffff_ffff) throw new InvalidArgumentError('It has to be a number from 1 on.')
  return number
}

/** More of them would wait for each other's memory; each takes a little that nothing bounds. */
const jobsMax = 64

function jobsAtOnce(value: string): number {
  const number = /^\d+$/.test(value) ? Number(value) : 0
  if (number >= 1 && number <= jobsMax) return number
  throw new InvalidArgumentError(`It has to be a number from 1 to ${jobsMax}.`)
}

program
  .command('verify')
  .showHelpAfterError('Try "pgarchivist verify --help".')
  .exitOverride(exitWith(2))
  .description('read a repository, and tell what in it is missing or damaged')
  .option(
    '-D, --pgdata <DIR>',
    'data directory of a server, whose settings say where the repository is, and of whose cluster there have to be files',
  )
  .option('--repository <URLS>', 'instead of the setting "pgarchivist.repository"')
  .option('--system-identifier <ID>', 'look at this cluster only')
  .option(
    '--timeline <NUMBER>',
    'look at this timeline only; may be repeated',
    (value: string, before: number[] | undefined) => [...(before ?? []), atLeastOne(value)],
  )
  .option('--decode', 'decrypt and decompress every object as well, and compare its content')
  .option('--identity-file <FILE>', 'private keys, instead of the setting "pgarchivist.identity_file"')
  .option(
    '--jobs <NUMBER>',
    `how many objects are read at once, up to ${jobsMax}; default: one per processor`,
    jobsAtOnce,
  )
  .option('--progress', 'tell how far it is, also where standard error is no terminal')
  .addOption(new Option('--output <FORMAT>', 'form of the output').choices(['text', 'json']).default('text'))
  .addHelpText(
    'after',
    `
It changes nothing, and needs no key unless --decode is given.

Exit status: 0 if everything is there, readable and right, 1 if something is missing or damaged, or if nothing is
there at all, 2 if not everything could be looked at, because the repository cannot be reached or a setting is wrong.`,
  )
  .action(async options => {
    const { verifyCommand } = await import('./verify-command.ts')
    process.exitCode = await verifyCommand(options)
  })

program
  .command('catch-up')
  .showHelpAfterError('Try "pgarchivist catch-up --help".')
  .exitOverride(exitWith(2))
  .description('copy to each of several repositories what another one has and it lacks')
  .option('-D, --pgdata <DIR>', 'data directory of a server, whose settings say where the repositories are')
  .option('--repository <URLS>', 'instead of the setting "pgarchivist.repository"')
  .option('--system-identifier <ID>', 'of the cluster whose WAL it is, instead of that of the data directory')
  .option('--dry-run', 'only tell what would be copied')
  .option('--jobs <NUMBER>', `how many objects are copied at once, up to ${jobsMax}; default: 4`, jobsAtOnce)
  .addOption(new Option('--output <FORMAT>', 'form of the output').choices(['text', 'json']).default('text'))
  .addHelpText(
    'after',
    `
The module "repository" does this by itself, while a server archives; this is for a repository that is new. It needs no
key. Objects are copied as they are, and none that is there is changed.

Exit status: 0 if each repository has now what any of them has, 1 if files of one name have different content, or with
--dry-run if something is missing, 2 if not everything could be compared or copied.`,
  )
  .action(async options => {
    const { catchUpCommand } = await import('./catch-up-command.ts')
    process.exitCode = await catchUpCommand(options)
  })

program
  .command('archive-push')
  .showHelpAfterError('Try "pgarchivist archive-push --help".')
  .exitOverride(exitWith(3))
  .description(
    "archive a WAL file to the repository: PostgreSQL's archive_command, where no library can be installed",
  )
  .argument('<path>', 'the WAL file, "%p"')
  .option('-D, --pgdata <DIR>', 'data directory, if it is neither the working directory nor where PATH is')
  .option('--repository <URLS>', 'instead of the setting "pgarchivist.repository"')
  .option('--system-identifier <ID>', 'of the cluster whose WAL it is, instead of that of the data directory')
  .option('--repository-quorum <N>', 'instead of the setting "pgarchivist.repository_quorum"')
  .option('--compression-level <N>', 'instead of the setting "pgarchivist.compression_level"')
  .option('--encryption-recipients <KEYS>', 'instead of the setting "pgarchivist.encryption_recipients"')
  .option('--header-check <on|off>', 'instead of the setting "pgarchivist.header_check"')
  .addHelpText(
    'after',
    `
Exit status: 0 if the file is archived and would survive a power cut. 2 if the repository cannot be reached, 3 if a
setting or the command line is wrong, 4 if the file was refused, as one that is there with other content, 5 if what is
stored under its name is damaged, 7 for anything else. The server tries again after each of these.`,
  )
  .action(async (path, options) => {
    const { archivePushCommand } = await import('./archive-push-command.ts')
    process.exit(await archivePushCommand(path, options))
  })

const collectPath = (value: string, before: string[]) => [...before, value]
const pgConfigOption = () =>
  new Option('--pg-config <PATH>', 'pg_config of a server, instead of all that are found; may be repeated')
    .argParser(collectPath)
    .default([], 'all that are found')
const pgConfigPlaces =
  'pg_config is looked for on the PATH, in /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin and /usr/local/pgsql/bin.'

program
  .command('install')
  .showHelpAfterError('Try "pgarchivist install --help".')
  .description('build the library that PostgreSQL loads, and install it into the servers of this machine')
  .addOption(pgConfigOption())
  .option(
    '--destdir <DIR>',
    'directory to put in front of where it is installed, for those who make packages',
  )
  .option('--dry-run', 'only tell what would be done')
  .addHelpText(
    'after',
    `
${pgConfigPlaces}
The compiler is the one that CC names, else the one that built the server, else cc, gcc or clang.

Exit status: 0 if the library was installed for every server that was named or found, 1 if it could not be for one of
them or if there is none.`,
  )
  .action(async options => {
    const { installCommand } = await import('./install-command.ts')
    process.exitCode = await installCommand(options)
  })

program
  .command('uninstall')
  .showHelpAfterError('Try "pgarchivist uninstall --help".')
  .description('remove that library')
  .addOption(pgConfigOption())
  .option('--destdir <DIR>', 'directory in front of where it was installed')
  .option('--dry-run', 'only tell what would be done')
  .addHelpText(
    'after',
    `
${pgConfigPlaces}

Exit status: 0 if none of the servers that were named or found has the library now, 1 if it could not be removed from
one of them or if there is none.`,
  )
  .action(async options => {
    const { uninstallCommand } = await import('./install-command.ts')
    process.exitCode = await uninstallCommand(options)
  })

// Not in the help: the library in the server starts it, and nobody else can.
program.command('bridge', { hidden: true }).action(async () => {
  const { runBridgeProcess } = await import('./bridge-process.ts')
  runBridgeProcess()
})

refuseOldNode()
await program.parseAsync()
