import { render } from "preact";

import "uplot/dist/uPlot.min.css";
import "./style.css";
import { App } from "./App";
import { applyTheme, storedTheme } from "./theme";

applyTheme(storedTheme());
const root = document.getElementById("page");
if (root !== null) render(<App />, root);
