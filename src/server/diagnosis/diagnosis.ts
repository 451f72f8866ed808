/**
 * How the server is, in figures of the last five minutes: what `Status` tells an operator, and, for the gauges that are
 * the same facts, what a scrape shows.
 */

import { type ResourceFigures, Resources } from "./resources.js";
import { type Quantiles, RollingWindow } from "./rolling-window.js";

/** One bound that the server enforces, and how much of it is used. */
export interface LimitUse {
  /** The option that moves it: "limits.locksMax". */
  readonly limit: string;
  readonly used: number;
  readonly max: number;
}

export interface CertificateFacts {
  readonly listener: "grpc" | "ops";
  readonly subject: string;
  /** In ms since 1970. */
  readonly notAfterMs: number;
}

export interface DiagnosisReport extends ResourceFigures {
  /** In milliseconds. */
  readonly loopLag: Quantiles;
  readonly commit: Quantiles;
  /** Those that are used most first. */
  readonly limits: readonly LimitUse[];
  readonly certificates: readonly CertificateFacts[];
  readonly wallClockMs: number;
  readonly nodeVersion: string;
  readonly authentication: boolean;
  readonly encryption: boolean;
}

export interface DiagnosisOptions {
  /** The directory of the store; undefined: it is not on disk. */
  readonly storeDirectory: string | undefined;
  readonly limits: () => readonly LimitUse[];
  /** Those that the server shows to its clients now. */
  readonly certificates: () => readonly CertificateFacts[];
  readonly authentication: boolean;
  readonly encryption: boolean;
  /** A clock that does not go back. */
  readonly monotonicMs: () => number;
  readonly wallMs: () => number;
}

export class Diagnosis {
  readonly #options: DiagnosisOptions;
  readonly #loopLag = new RollingWindow();
  readonly #commit = new RollingWindow();
  readonly #resources: Resources;

  constructor(options: DiagnosisOptions) {
    this.#options = options;
    this.#resources = new Resources(options.storeDirectory);
  }

  start(): void {
    this.#resources.start();
  }

  stop(): void {
    this.#resources.stop();
  }

  /** A timer was this late. */
  lag(seconds: number): void {
    this.#loopLag.observe(seconds * 1_000, this.#options.monotonicMs());
  }

  /** A record became durable. */
  committed(seconds: number): void {
    this.#commit.observe(seconds * 1_000, this.#options.monotonicMs());
  }

  /** Space and files, as of the last ten seconds. */
  get resources(): ResourceFigures {
    return this.#resources.latest;
  }

  get certificates(): readonly CertificateFacts[] {
    return this.#options.certificates();
  }

  report(): DiagnosisReport {
    const { limits, certificates, authentication, encryption, monotonicMs, wallMs } = this.#options;
    const nowMs = monotonicMs();
    return {
      ...this.#resources.latest,
      loopLag: this.#loopLag.quantiles(nowMs),
      commit: this.#commit.quantiles(nowMs),
      limits: [...limits()].sort((a, b) => b.used / b.max - a.used / a.max),
      certificates: certificates(),
      wallClockMs: wallMs(),
      nodeVersion: process.version,
      authentication,
      encryption,
    };
  }
}
