// Backward: with P = e^(logit - lse), dP = grad_out V^T and delta = grad_out . out - grad_lse of each row:
//     d logit = P (dP - delta)        dV = P^T grad_out        dQ = scale dS K        dK = scale dS^T Q
// where dS is d logit times the softcap's derivative. One pass over the query rows makes dQ and the numbers of each row
// that the other passes need; a pass over the keys makes dK and dV, summing the heads of a group as it goes. Each sum
// is made by one thread in a fixed order. Scores, P and dS stay in the accumulating type. Compiled once per instruction
// set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include "ops/cpu/attention/scores.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

// d logit from P's parts; P itself into `weight`.
template <class Acc>
ROCFORGE_HD Vec<Acc> logit_gradient(const ScoreRule<Acc> &rule, Vec<Acc> logit, Vec<Acc> base, Vec<Acc> inverse_sum,
                                    Vec<Acc> grad_weight, Vec<Acc> delta, Vec<Acc> *weight) {
  *weight = rule.weight(logit - base) * inverse_sum;
  return *weight * (grad_weight - delta);
}

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
