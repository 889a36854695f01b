/* eval.h - quality: images, training, PSNR and SSIM. One header for the module; the parts are
 *   eval/image.h  images, PNG/JPEG, resampling, PSNR/SSIM        eval/data.h  data sets, splits, patches
 *   eval/train.h  weight store, supernet trainer, forward, checkpoints
 * Layer 2: includes core and ir. */
#ifndef NAS_EVAL_EVAL_H
#define NAS_EVAL_EVAL_H

#include "eval/image.h"
#include "eval/data.h"
#include "eval/train.h"
#include "eval/class_data.h"
#include "eval/class_train.h"
#include "eval/class_norms.h"
#include "eval/exec.h"
#include "eval/codes.h"

#endif
