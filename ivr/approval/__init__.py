"""Who must agree to a payment: policies, guardians and wards, supervisors, addresses, and the approvals themselves."""
