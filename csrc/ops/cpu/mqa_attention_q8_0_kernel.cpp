#include <torch/library.h>

#include "ops/cpu/attention_problem.h"
#include "ops/mqa_attention_q8_0.h"

namespace rocforge::cpu {
namespace {

std::tuple<at::Tensor, at::Tensor> mqa_attention_q8_0(const at::Tensor &query, const at::Tensor &key,
                                                      const at::Tensor &value, const OptionalTensor &attn_mask,
                                                      std::string_view causal, std::optional<double> scale,
                                                      std::optional<int64_t> window, double softcap,
                                                      const OptionalTensor &sinks, const OptionalTensor &alibi_slopes,
                                                      const OptionalTensor &kv_lengths) {
  const OptionalTensor no_cuts;
  const MqaOptions options{attn_mask, causal,       scale,      window,  softcap,
                           sinks,     alibi_slopes, kv_lengths, no_cuts, no_cuts};
  AttentionProblem problem(query, key, value, options, check_mqa_attention_q8_0(query, key, value, options));
  Attention &a = problem.attention;
  a.value_dim = q8_0_elements(value);
  for (View *blocks : {&a.key, &a.value}) blocks->blocks = true, blocks->type = a.query.type;
  return attend(problem, query);
}

}  // namespace
}  // namespace rocforge::cpu

TORCH_LIBRARY_IMPL(rocforge, CPU, m) { m.impl("mqa_attention_q8_0", rocforge::cpu::mqa_attention_q8_0); }
