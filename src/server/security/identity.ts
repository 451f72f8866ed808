/** The name of a certificate's owner. */
import type { PeerCertificate } from "node:tls";

const NAME_LENGTH_MAX = 256;
/** One entry as Node writes it: `DNS:example.org`; what could be mistaken for several entries is quoted as in JSON. */
const ENTRY = /([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^,"]*)(?:, |$)/y;

/**
 * The first URI among its alternative names (SPIFFE's place for identities), else the first DNS name. Null: it has
 * neither, or none that is fit to be a name. The common name of the subject is never one.
 */
export function certificateOwner(certificate: Pick<PeerCertificate, "subjectaltname">): string | null {
  const names = alternativeNames(certificate.subjectaltname ?? "");
  const uri = names.find(({ kind }) => kind === "URI");
  const name = (uri ?? names.find(({ kind }) => kind === "DNS"))?.name;
  return name !== undefined && isName(name) ? name : null;
}

/** What may be the name of a principal, whoever has made it up: it goes into logs, and policies are matched against it. */
export const isName = (text: string): boolean =>
  text !== "" && text.length <= NAME_LENGTH_MAX && /^[\x21-\x7e]+$/.test(text);

function alternativeNames(text: string): { readonly kind: string; readonly name: string }[] {
  const names: { kind: string; name: string }[] = [];
  const entry = new RegExp(ENTRY);
  while (entry.lastIndex < text.length) {
    const match = entry.exec(text);
    if (match === null) return []; // in no form that is known: it is not for us to guess
    const [, kind = "", value = ""] = match;
    names.push({ kind, name: value.startsWith('"') ? unquoted(value) : value });
  }
  return names;
}

function unquoted(value: string): string {
  try {
    return String(JSON.parse(value));
  } catch {
    return ""; // is no name
  }
}
