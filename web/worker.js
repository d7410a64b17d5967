// The trainer's thread.

import { serve } from "./trainer.js";

// A panic in wasm may arrive here.
onunhandledrejection = serve(self).failed;
