import type { leasehold } from "../wire/index.js";
import type { OutboxLimits } from "./outbox.js";

type Hello = leasehold.v1.Hello.$Properties;
type Welcome = leasehold.v1.Welcome.$Properties;

/** Why a Welcome cannot be accepted. */
export interface Mismatch {
  readonly code: number;
  readonly reason: string;
  readonly message: string;
}

/** In the absence of the server's word. */
const IN_FLIGHT_MAX = 1_024;
const FRAME_BYTES_MAX = 1_048_576;

/** Who this client is to the server, from one stream to the next. */
export class Identity {
  readonly #clientName: string;
  readonly #owner: string;
  #sessionId = "";
  #epoch = 0;
  /** Kept from session to session: grants of another store must not be mixed with those of this one. */
  #clusterId = "";

  constructor(clientName: string, owner = "") {
    this.#clientName = clientName;
    this.#owner = owner;
  }

  /** Whether there is a session to resume. */
  get hasSession(): boolean {
    return this.#sessionId !== "";
  }

  /** The Hello of the next stream. */
  hello(claims: number[], outstanding: number[], abandoned: number[], highestToken: number): Hello {
    this.#epoch = this.hasSession ? this.#epoch + 1 : 1;
    return {
      sessionId: this.#sessionId,
      epoch: this.#epoch,
      claims,
      outstanding,
      abandoned,
      clusterId: this.#clusterId,
      highestToken,
      client: this.#clientName,
      owner: this.#owner,
    };
  }

  /** Takes the server's answer, or says why not. */
  accept(welcome: Welcome | null | undefined): Mismatch | OutboxLimits {
    if (!welcome?.sessionId || (this.hasSession && welcome.sessionId !== this.#sessionId)) {
      return { code: 13, reason: "", message: "the server's answer to the Hello is no Welcome to it" };
    }
    const clusterId = welcome.clusterId ?? "";
    if (this.#clusterId !== "" && clusterId !== this.#clusterId) {
      const message = `this is cluster ${clusterId}, not ${this.#clusterId} as before: another store`;
      return { code: 9, reason: "CLUSTER_MISMATCH", message };
    }
    this.#clusterId = clusterId;
    this.#sessionId = welcome.sessionId;
    return {
      inFlightMax: welcome.commandsInFlightMax || IN_FLIGHT_MAX,
      frameBytesMax: welcome.frameBytesMax || FRAME_BYTES_MAX,
    };
  }

  /** The session is no more; the next Hello asks for a new one. */
  forgetSession(): void {
    this.#sessionId = "";
  }
}
