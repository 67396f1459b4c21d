/* Puts everything on the page of a run. */
"use strict";

drawFrontier();
drawLayers();
drawReconstruction();
drawNorms("blocks");
drawNorms("groups");
drawTraining();
document.documentElement.dataset.drawn = "yes";
