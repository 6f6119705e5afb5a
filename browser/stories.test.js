// All stories, in order. The last ones stop processes.

import './stories/opening.js';
import './stories/buying.js';
import './stories/watching.js';
import './stories/refusals.js';
import './stories/access.js';
import './stories/live.js';
import './stories/failing-live.js';
import './stories/failing.js';
