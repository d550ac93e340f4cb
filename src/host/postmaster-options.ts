import { parseCommandLineSetting, type RawSetting, type Settings, settingsOf } from './settings.ts'

/** What the command line of a postmaster says, as far as it concerns settings. */
export interface PostmasterCommandLine {
  settings: Settings
  /** Of `-D`: where the configuration files are, which need not be the data directory. */
  directory: string | undefined
}

/** The settings on the command line that a postmaster recorded in `postmaster.opts`. */
export function postmasterOptions(text: string): Settings {
  return postmasterCommandLine(text).settings
}

// The short options of `postgres` that are followed by a value; the others stand alone.
const withValue = 'BCDdfhkNprStWc-'

/** Reads `postmaster.opts`: the program, then every argument between double quotes, in which nothing is escaped. */
export function postmasterCommandLine(text: string): PostmasterCommandLine {
  const list: RawSetting[] = []
  let directory: string | undefined
  for (const { option, value } of shortOptions(quotedArguments(text))) {
    if (option === 'D') directory = value
    // A server that started had a value in each, so one without is damage, and there is nothing to learn from it.
    if ((option === 'c' || option === '-') && value.includes('=')) list.push(parseCommandLineSetting(value))
  }
  return { settings: settingsOf(list), directory }
}

function quotedArguments(text: string): string[] {
  const start = text.indexOf(' "')
  const end = text.lastIndexOf('"')
  return start < 0 || end <= start + 1 ? [] : text.slice(start + 2, end).split('" "')
}

/** As `getopt` takes a command line apart, `--name=value` being the option `-` with the value `name=value`. */
function* shortOptions(words: string[]): Generator<{ option: string; value: string }> {
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? ''
    if (!word.startsWith('-') || word === '--') return
    for (let at = 1; at < word.length; at++) {
      const option = word.charAt(at)
      if (!withValue.includes(option)) {
        yield { option, value: '' }
        continue
      }
      yield { option, value: word.slice(at + 1) || (words[++i] ?? '') }
      break
    }
  }
}
