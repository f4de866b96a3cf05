// Asks the API. The key is in the fragment of the address (`#key=…`), which browsers send to nobody.

/** What came back, and how old it was when it came. */
export interface Answer<T> {
  body: T;
  /** The moment by this browser's steady clock (`performance.now()`) that the answer is true for. */
  trueAt: number | undefined;
}

/** Why there is no answer: a problem of RFC 9457, or that nobody answered. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly hint: string,
    /** The parameters that are at fault. */
    readonly params: string[] = [],
  ) {
    super(detail);
  }
}

export const key: string | undefined =
  new URLSearchParams(location.hash.slice(1)).get("key") ?? undefined;

/** Longer than the API lets a query take. */
const TIMEOUT = 20_000;

export function headers(): Record<string, string> {
  return key === undefined ? {} : { authorization: `Bearer ${key}` };
}

export async function ask<T>(path: string, signal?: AbortSignal): Promise<Answer<T>> {
  const response = await request(path, signal).catch((error: unknown) => {
    // Not every window can be compared with another one. The numbers are worth showing without.
    const bare = path.replace(/&compare=[a-z]+/, "");
    if (error instanceof Refusal && error.params.includes("compare") && bare !== path) return request(bare, signal);
    throw error;
  });
  const answer = (await response.json()) as T;
  return { body: answer, trueAt: trueAt(response.headers) };
}

/** An answer as text, for a file. */
export async function download(path: string): Promise<Blob> {
  return (await request(path)).blob();
}

async function request(path: string, signal?: AbortSignal): Promise<Response> {
  const timeout = AbortSignal.timeout(TIMEOUT);
  let response: Response;
  try {
    response = await fetch(path, {
      headers: headers(),
      signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refusal(0, "unreachable", "The query API does not answer.", "The page asks again by itself.");
  }
  if (response.ok) return response;
  const problem = (await response.json().catch(() => ({}))) as Record<string, unknown>;
  const text = (name: string, other: string) =>
    typeof problem[name] === "string" ? (problem[name] as string) : other;
  throw new Refusal(
    response.status,
    text("code", "unknown"),
    text("detail", `The query API answers ${response.status}.`),
    text("hint", ""),
    Array.isArray(problem.errors) ? problem.errors.map(({ param }: { param?: unknown }) => String(param)) : [],
  );
}

/** `X-Age-Ms` is the age when the answer was sent; its whole seconds are in `Age`. */
function trueAt(headers: Headers): number | undefined {
  const millis = headers.get("x-age-ms");
  const seconds = headers.get("age");
  if (millis !== null) return performance.now() - Number(millis);
  return seconds === null ? undefined : performance.now() - Number(seconds) * 1000;
}
