// Light or dark: as the system has it, unless the reader says otherwise. Kept in this browser; `?theme=dark`
// in an address is for screens on walls, which have no reader.

export type Theme = "auto" | "light" | "dark";

const NAME = "millrace-theme";
const THEMES: Theme[] = ["auto", "light", "dark"];

export function storedTheme(): Theme {
  const given = new URLSearchParams(location.search).get("theme") ?? read();
  return THEMES.find((theme) => theme === given) ?? "auto";
}

export function nextTheme(theme: Theme): Theme {
  return THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "auto";
}

export function applyTheme(theme: Theme): void {
  const root = document.documentElement;
  if (theme === "auto") delete root.dataset.theme;
  else root.dataset.theme = theme;
  try {
    if (theme === "auto") localStorage.removeItem(NAME);
    else localStorage.setItem(NAME, theme);
  } catch {
    // A browser without storage forgets the choice.
  }
}

function read(): string | null {
  try {
    return localStorage.getItem(NAME);
  } catch {
    return null;
  }
}
